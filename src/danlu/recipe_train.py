"""The section ``train`` of the recipe: how it is taught. ``recipe`` refers to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from danlu.plugins import is_optimizer
from danlu.recipe_section import Auto, Section, zh

Scheduler = Literal["linear", "cosine", "constant", "warmup_stable_decay"]
Optim = Literal["adamw", "adamw_8bit", "adafactor", "muon"]
Dtype = Literal["float32", "bfloat16"]


class TrainSection(Section):
    """How the pupil is taught: how strongly, how often, how much at once."""

    learning_rate: Auto | Literal["probe"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "auto",
        description=(
            "How strongly each correction changes the pupil. Too high: it loses its head; too low: it learns nothing. "
            "probe tries five strengths on your rows first, each from the beginning, and takes the best."
        ),
        json_schema_extra=zh(
            "每次纠正的力度。太高：学乱了；太低：什么也学不到。probe 会先在你的数据上从头试五种力度，取最好的。"
        ),
    )
    num_train_epochs: Auto | Annotated[float, Field(gt=0, le=1000)] = Field(
        "auto",
        description=(
            "How often the whole material is gone through. Too many: it recites by heart; too few: it does not stick."
        ),
        json_schema_extra=zh("全部材料复习几遍。太多：死记硬背；太少：记不住。"),
    )
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description=(
            "Exactly so many corrections, whatever the number of passes would give; null leaves it to "
            "num_train_epochs. Too many: it recites by heart; too few: part of the material is never seen."
        ),
        json_schema_extra=zh(
            "恰好纠正这么多次，不管复习几遍；null 表示由 num_train_epochs 决定。太多：死记硬背；太少：有些材料没看到。"
        ),
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto",
        description=(
            "Examples looked at before each correction (one optimizer step). "
            "Small corrects often, large corrects surely. Of plain texts, sequences of max_length tokens."
        ),
        json_schema_extra=zh(
            "每次纠正前看多少个样本（一个优化步）。小则勤改，大则改得稳。纯文本按长度为 max_length 的序列计。"
        ),
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description=(
            "The largest single correction allowed. Too high: one odd example throws the pupil off; too low: every "
            "correction is held back and it learns slowly."
        ),
        json_schema_extra=zh("单次纠正幅度的上限。太高：一个古怪的样本就能带偏；太低：每次纠正都被压住，学得慢。"),
    )
    lr_scheduler_type: Auto | Scheduler = Field(
        "auto",
        description=(
            "How the learning rate falls over the run: in a line, as a cosine, not at all, or only in the last fifth "
            "(warmup_stable_decay). Strong to the end leaves the last lessons rough; weak too early wastes the "
            "lessons after."
        ),
        json_schema_extra=zh(
            "学习率在训练过程中如何下降：直线、余弦、不降，或只在最后五分之一下降（warmup_stable_decay）。到最后还用"
            "力：收尾粗糙；太早减弱：后面的课白上。"
        ),
    )
    warmup_ratio: Auto | Annotated[float, Field(ge=0, lt=1)] = Field(
        "auto",
        description=(
            "Warming up: the share of the lessons in which corrections grow from nothing. Too high: half of the "
            "course is warming up; too low: the first corrections, made in ignorance, do damage."
        ),
        json_schema_extra=zh(
            "热身：纠正力度从零升起所占的步数比例。太高：大半课程都在热身；太低：一开始的盲目纠正会造成损害。"
        ),
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description=(
            "The same as a number of steps; takes the place of warmup_ratio. Too many: the pupil is never spoken to in "
            "full voice; too few: the first corrections may startle it."
        ),
        json_schema_extra=zh(
            "同上，但写作步数，取代 warmup_ratio。太多：始终没有放开声音教；太少：最初几次纠正可能把它吓乱。"
        ),
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01,
        description=(
            "How fast notes fade that are not needed again. Too high: it forgets while it learns; 0: nothing fades, "
            "chance neither."
        ),
        json_schema_extra=zh("用不上的笔记褪色有多快。太高：边学边忘；0：什么都不褪色，偶然的东西也留着。"),
    )
    max_length: Auto | Annotated[int, Field(ge=8)] = Field(
        "auto",
        description=(
            "The longest lesson, in tokens; longer ones are refused, never cut. Too high: memory; too low: rows are "
            "refused. Plain texts (pretrain) are learned in pieces of this length, without losing any."
        ),
        json_schema_extra=zh(
            "最长的一课有多少词元；更长的会被拒绝，绝不截断。太高：费内存；太低：有数据被拒绝。纯文本（pretrain）按这"
            "个长度分片学习，一个词元也不丢。"
        ),
    )
    share_prefix: Auto | bool = Field(
        "auto",
        description=(
            "Read out once what several examples begin with, such as a long system prompt, instead of before each of "
            "them. The result is the same; auto does so where it saves time."
        ),
        json_schema_extra=zh(
            "多个样本开头相同的内容（如很长的系统提示）只念一遍，而不是每个样本前都念。结果相同；auto 在省时间时启用。"
        ),
    )
    optim: Optim | Annotated[str, AfterValidator(is_optimizer)] = Field(
        "adamw",
        description=(
            "What turns corrections into changes. adamw is right nearly always; adamw_8bit and adafactor need less "
            "memory; muon changes each matrix evenly in all directions. Or the name of a plug-in."
        ),
        json_schema_extra=zh(
            "把纠正变成改动的方法。几乎总是用 adamw；adamw_8bit 和 adafactor 省内存；"
            "muon 让每个矩阵在各个方向上均匀改动。也可以写插件的名称。"
        ),
    )
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None,
        description=(
            "NEFTune: a little noise on the words while learning, so that the pupil does not cling to the wording. "
            "5 is the usual value; too high, and it mishears."
        ),
        json_schema_extra=zh("NEFTune：学习时给词语加一点噪声，免得死抠字句。常用 5；太高就听不清了。"),
    )
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "Share of each answer's certainty that is taken away, so that the pupil stays open to other words. "
            "0.1 is much; 0 is right for learning facts by heart."
        ),
        json_schema_extra=zh("从每个答案中拿走多少把握，让它对别的说法保持开放。0.1 已经不少；要记住事实就用 0。"),
    )
    dtype: Auto | Dtype = Field(
        "auto",
        description=(
            "How exactly the pupil reckons: float32 is exact and takes twice the memory, bfloat16 is rougher and "
            "faster on some processors; auto measures which one this machine is faster in."
        ),
        json_schema_extra=zh(
            "学生算得多精确：float32 精确但占两倍内存，bfloat16 较粗略，在有些处理器上更快；auto 会实测本机用哪种更快。"
        ),
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        42,
        description=(
            "The order of the lessons, by lot: the same seed gives the same run. No number is better than another; "
            "results that change much with it are chance."
        ),
        json_schema_extra=zh(
            "抽签决定上课的顺序：相同的种子得到相同的训练。没有哪个数更好；结果若随它大变，就只是运气。"
        ),
    )

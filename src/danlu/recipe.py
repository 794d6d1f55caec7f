"""The recipe: what a person wants trained. One schema; help, manual, JSON Schema and web form are made from it.

A recipe is YAML, or nothing but ``key=value`` words. Most fields may be ``auto``; ``planning`` decides those.
Field descriptions stand in English here and in Chinese under ``json_schema_extra["zh"]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from danlu.plugins import is_objective, is_optimizer
from danlu.recipe_preference import PreferenceSection
from danlu.recipe_semi import SemiSection

Auto = Literal["auto"]
Objective = Literal["sft", "pretrain", "semi", "dpo", "kto", "orpo"]
Method = Literal["lora", "qlora", "full", "freeze"]
Scheduler = Literal["linear", "cosine", "constant", "warmup_stable_decay"]
Optim = Literal["adamw", "adamw_8bit", "adafactor", "muon"]
LoraInit = Literal["default", "pissa"]
Dtype = Literal["float32", "bfloat16"]
Tracker = Literal["none", "tensorboard", "wandb", "swanlab", "mlflow"]


def _zh(text: str) -> dict[str, Any]:
    return {"zh": text}


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """Which examples are learned, and which are kept aside to measure on."""

    train: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        min_length=1,
        description=(
            "The textbooks: names of data sets, or files, to learn from. Too few examples: the pupil learns sentences "
            "and not the subject; too mixed: it learns a little of everything."
        ),
        json_schema_extra=_zh(
            "课本：要学习的数据集名称或文件。样本太少：只记住句子，学不到内容；太杂：样样都只学一点。"
        ),
    )
    holdout: Auto | Annotated[float, Field(ge=0, lt=1)] | str = Field(
        "auto",
        description=(
            "Exam questions: the share of the examples kept aside to measure progress (0 for none), or another data "
            "set or file to measure on: then everything in train is learned. Too much: little is left to learn from; "
            "too little: the marks are chance."
        ),
        json_schema_extra=_zh(
            "考题：留出用于衡量进展的样本比例（0 表示不留），或另外用来衡量的数据集或文件：此时 train 中的数据全部用于"
            "学习。太多：没剩多少可学；太少：成绩靠运气。"
        ),
    )
    unlabelled: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description=(
            "Names of data sets, or files, of plain texts that are read beside the answers (objective semi). Too much "
            "of another kind than the questions, and the pupil's head is elsewhere; none, and it knows answers only."
        ),
        json_schema_extra=_zh(
            "学习回答的同时阅读的纯文本数据集名称或文件（objective 为 semi）。与问题不相干的太多：心思不在题上；"
            "没有：只会答过的题。"
        ),
    )
    max_samples: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description=(
            "How many rows of each textbook are read, from its beginning; null reads all. Few make a quick try; too "
            "few teach sentences and not the subject."
        ),
        json_schema_extra=_zh("每本课本从头读多少条；null 表示全部。少则试得快；太少只学到句子，学不到内容。"),
    )


class LoraSection(_Section):
    """The low-rank matrices that learn while the model itself stays as it is."""

    adapter: str | None = Field(
        None,
        description=(
            "Go on from this adapter (a run, a version, or a folder in peft's format) instead of a fresh one: the "
            "pupil comes with what it has learned. Its shape comes along. With a learning rate too high it forgets the "
            "earlier lessons; too low, and nothing is added."
        ),
        json_schema_extra=_zh(
            "从这个适配器（训练、版本或 peft 格式的文件夹）接着学，而不是从头开始：学生带着已学会的来上课。形状随它。"
            "学习率太高会忘掉以前的功课；太低则学不到新东西。"
        ),
    )
    r: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto",
        description=(
            "Rank: how thick the pupil's notebook is. Too thin: much material does not fit in; too thick: memory is "
            "spent on empty pages, and chance is noted as well."
        ),
        json_schema_extra=_zh(
            "秩：学生的笔记本有多厚。太薄：材料多了记不下；太厚：内存花在空白页上，偶然的东西也会记进去。"
        ),
    )
    lora_alpha: Auto | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description=(
            "How loudly the notes speak beside what the pupil knew: their output is multiplied by lora_alpha / r. Too "
            "loud: they drown it out; too quiet: they change nothing."
        ),
        json_schema_extra=_zh(
            "笔记相对于原有知识的音量：其输出乘以 lora_alpha / r。太响：盖过原有知识；太轻：毫无作用。"
        ),
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "Share of what is noted that is covered up at random, so that the pupil does not cling to single words. "
            "Too high: it hears half of everything; 0 is right for small data and keeps the fast paths."
        ),
        json_schema_extra=_zh(
            "随机遮住多少笔记内容，免得抓住个别字词不放。太高：什么都只听到一半；小数据集用 0 即可，快速路径也要求为 "
            "0。"
        ),
    )
    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        description=(
            "Where the pupil may take notes: which matrices get an adapter. Few places save memory and learn less; "
            "all-linear is the strongest choice at any rank."
        ),
        json_schema_extra=_zh(
            "学生可以在哪里记笔记：为哪些矩阵加适配器。地方少则省内存、学得少；all-linear（全部线性层）在任何秩下都是"
            "最强的选择。"
        ),
    )
    use_rslora: bool = Field(
        False,
        description=(
            "rsLoRA: divide lora_alpha by the square root of the rank, not the rank, so that a large adapter is not "
            "silenced. Worth it from rank 64 on."
        ),
        json_schema_extra=_zh(
            "rsLoRA：lora_alpha 除以秩的平方根而不是秩，大的适配器才不会被压得没有声音。秩不小于 64 时值得用。"
        ),
    )
    use_dora: bool = Field(
        False,
        description=(
            "DoRA: how much and in which direction each matrix changes are learned apart. A little better at low "
            "rank, clearly slower."
        ),
        json_schema_extra=_zh("DoRA：每个矩阵改多少、往哪个方向改，分开来学。秩低时略好，明显更慢。"),
    )
    init_lora_weights: LoraInit = Field(
        "default",
        description=(
            "How the adapter begins: default from nothing; pissa from the most important part of each matrix, which "
            "learns faster at first. The finished adapter has twice the rank."
        ),
        json_schema_extra=_zh(
            "适配器从哪里开始：default 从零开始；pissa 从每个矩阵最重要的部分开始，起初学得更快。"
            "训练完成的适配器秩为两倍。"
        ),
    )
    loraplus_lr_ratio: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None,
        description=(
            "LoRA+: how many times faster the second half of the notes is written than the first; 16 is the usual "
            "value. Too high: it scribbles, unless the learning rate is lowered; 1: both alike."
        ),
        json_schema_extra=_zh(
            "LoRA+：笔记的后半部分比前半部分写得快多少倍，常用 16。太高：写得潦草，需调低学习率；1：两半一样快。"
        ),
    )

    quantization_bit: Literal[4, 8] = Field(
        4,
        description=(
            "With method qlora: in how many bits the frozen model is kept. 4 needs least memory, 8 is more exact; "
            "both cost time on a CPU."
        ),
        json_schema_extra=_zh(
            "method 为 qlora 时：冻结的模型用多少位保存。4 最省内存，8 更精确；在 CPU 上都要多花时间。"
        ),
    )


class FreezeSection(_Section):
    """Which part of the model itself learns with ``method: freeze``."""

    layers: Auto | Annotated[int, Field(ge=-1000, le=1000)] = Field(
        "auto",
        description=(
            "How much of the pupil's mind learns: so many of the last layers; a negative number means the first ones. "
            "Too many: it forgets what it knew; too few: it cannot take the material in."
        ),
        json_schema_extra=_zh(
            "头脑的多大部分参与学习：最后几层；负数表示最前面的几层。太多：忘了原来会的；太少：学不进去。"
        ),
    )
    modules: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description=(
            "Which faculties of these layers learn: weights whose names contain one of these words, such as mlp; "
            "empty for all. Fewer forget less and learn less."
        ),
        json_schema_extra=_zh(
            "这些层中哪些能力参与学习：名称含有这些词（如 mlp）的权重；留空表示全部。越少，忘得越少，学得也越少。"
        ),
    )
    extra_modules: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description=(
            "What learns as well outside of the layers, such as embed_tokens (the vocabulary itself) or norm. Too "
            "much: the meaning of words shifts; nothing is right unless there are new words."
        ),
        json_schema_extra=_zh(
            "各层之外还有什么参与学习，例如 embed_tokens（词汇本身）或 norm。太多：词义会漂移；没有新词就留空。"
        ),
    )


class TrainSection(_Section):
    """How the pupil is taught: how strongly, how often, how much at once."""

    learning_rate: Auto | Literal["probe"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "auto",
        description=(
            "How strongly each correction changes the pupil. Too high: it loses its head; too low: it learns nothing. "
            "probe tries five strengths on your rows first, each from the beginning, and takes the best."
        ),
        json_schema_extra=_zh(
            "每次纠正的力度。太高：学乱了；太低：什么也学不到。probe 会先在你的数据上从头试五种力度，取最好的。"
        ),
    )
    num_train_epochs: Auto | Annotated[float, Field(gt=0, le=1000)] = Field(
        "auto",
        description=(
            "How often the whole material is gone through. Too many: it recites by heart; too few: it does not stick."
        ),
        json_schema_extra=_zh("全部材料复习几遍。太多：死记硬背；太少：记不住。"),
    )
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description=(
            "Exactly so many corrections, whatever the number of passes would give; null leaves it to "
            "num_train_epochs. Too many: it recites by heart; too few: part of the material is never seen."
        ),
        json_schema_extra=_zh(
            "恰好纠正这么多次，不管复习几遍；null 表示由 num_train_epochs 决定。太多：死记硬背；太少：有些材料没看到。"
        ),
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto",
        description=(
            "Examples looked at before each correction (one optimizer step). "
            "Small corrects often, large corrects surely. Of plain texts, sequences of max_length tokens."
        ),
        json_schema_extra=_zh(
            "每次纠正前看多少个样本（一个优化步）。小则勤改，大则改得稳。纯文本按长度为 max_length 的序列计。"
        ),
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description=(
            "The largest single correction allowed. Too high: one odd example throws the pupil off; too low: every "
            "correction is held back and it learns slowly."
        ),
        json_schema_extra=_zh("单次纠正幅度的上限。太高：一个古怪的样本就能带偏；太低：每次纠正都被压住，学得慢。"),
    )
    lr_scheduler_type: Auto | Scheduler = Field(
        "auto",
        description=(
            "How the learning rate falls over the run: in a line, as a cosine, not at all, or only in the last fifth "
            "(warmup_stable_decay). Strong to the end leaves the last lessons rough; weak too early wastes the "
            "lessons after."
        ),
        json_schema_extra=_zh(
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
        json_schema_extra=_zh(
            "热身：纠正力度从零升起所占的步数比例。太高：大半课程都在热身；太低：一开始的盲目纠正会造成损害。"
        ),
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description=(
            "The same as a number of steps; takes the place of warmup_ratio. Too many: the pupil is never spoken to in "
            "full voice; too few: the first corrections may startle it."
        ),
        json_schema_extra=_zh(
            "同上，但写作步数，取代 warmup_ratio。太多：始终没有放开声音教；太少：最初几次纠正可能把它吓乱。"
        ),
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01,
        description=(
            "How fast notes fade that are not needed again. Too high: it forgets while it learns; 0: nothing fades, "
            "chance neither."
        ),
        json_schema_extra=_zh("用不上的笔记褪色有多快。太高：边学边忘；0：什么都不褪色，偶然的东西也留着。"),
    )
    max_length: Auto | Annotated[int, Field(ge=8)] = Field(
        "auto",
        description=(
            "The longest lesson, in tokens; longer ones are refused, never cut. Too high: memory; too low: rows are "
            "refused. Plain texts (pretrain) are learned in pieces of this length, without losing any."
        ),
        json_schema_extra=_zh(
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
        json_schema_extra=_zh(
            "多个样本开头相同的内容（如很长的系统提示）只念一遍，而不是每个样本前都念。结果相同；auto 在省时间时启用。"
        ),
    )
    optim: Optim | Annotated[str, AfterValidator(is_optimizer)] = Field(
        "adamw",
        description=(
            "What turns corrections into changes. adamw is right nearly always; adamw_8bit and adafactor need less "
            "memory; muon changes each matrix evenly in all directions. Or the name of a plug-in."
        ),
        json_schema_extra=_zh(
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
        json_schema_extra=_zh("NEFTune：学习时给词语加一点噪声，免得死抠字句。常用 5；太高就听不清了。"),
    )
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "Share of each answer's certainty that is taken away, so that the pupil stays open to other words. "
            "0.1 is much; 0 is right for learning facts by heart."
        ),
        json_schema_extra=_zh("从每个答案中拿走多少把握，让它对别的说法保持开放。0.1 已经不少；要记住事实就用 0。"),
    )
    dtype: Auto | Dtype = Field(
        "auto",
        description=(
            "How exactly the pupil reckons: float32 is exact and takes twice the memory, bfloat16 is rougher and "
            "faster on some processors; auto measures which one this machine is faster in."
        ),
        json_schema_extra=_zh(
            "学生算得多精确：float32 精确但占两倍内存，bfloat16 较粗略，在有些处理器上更快；auto 会实测本机用哪种更快。"
        ),
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        42,
        description=(
            "The order of the lessons, by lot: the same seed gives the same run. No number is better than another; "
            "results that change much with it are chance."
        ),
        json_schema_extra=_zh(
            "抽签决定上课的顺序：相同的种子得到相同的训练。没有哪个数更好；结果若随它大变，就只是运气。"
        ),
    )


class EvalSection(_Section):
    """How progress is watched."""

    every: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description=(
            "Lessons (optimizer steps) between two exams. Too many: the best moment is missed; too few: more time "
            "goes into exams than into learning."
        ),
        json_schema_extra=_zh("两次考试之间上多少课（优化步）。太多：错过最好的时刻；太少：考试比学习还花时间。"),
    )
    early_stopping: Auto | bool = Field(
        "auto",
        description=(
            "End the course when three exams in a row bring nothing better, and keep the best state. Without it the "
            "pupil may go on to reciting by heart; with a noisy exam it may end too early."
        ),
        json_schema_extra=_zh(
            "连续三次考试没有进步就结束课程，并保留最佳状态。不用：可能学成死记硬背；考题太少而波动时：可能结束得太早。"
        ),
    )
    probes: str | None = Field(
        None,
        description=(
            "File of oral exam questions (JSON Lines) asked before, during and after training. Too few prove nothing; "
            "questions from the textbook itself prove only memory."
        ),
        json_schema_extra=_zh(
            "口试题文件（JSON Lines），在训练前、中、后提问。太少：说明不了什么；直接取自课本：只能证明记性。"
        ),
    )


class ResourcesSection(_Section):
    """What the run may use."""

    devices: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description=(
            "How many desks the pupil works at: devices. More is faster, as long as there are enough rows for each."
        ),
        json_schema_extra=_zh("学生用几张书桌：设备数量。多则快，前提是每张桌上都有足够的数据。"),
    )


class Recipe(_Section):
    """Everything a person decides about a run."""

    model: str = Field(
        description=(
            "The pupil: a base model, a name of the catalogue or a folder. Too big: slow, or no room; too small: it "
            "cannot follow the material."
        ),
        json_schema_extra=_zh("学生：基座模型，目录中的名称或一个文件夹。太大：慢，或者内存装不下；太小：跟不上材料。"),
    )
    data: DataSection
    objective: Objective | Annotated[str, AfterValidator(is_objective)] = Field(
        "sft",
        description=(
            "sft learns answers to questions; pretrain learns plain text; semi does both; dpo and orpo learn which of "
            "two answers is better, kto from single answers with praise or blame. Or the name of a plug-in."
        ),
        json_schema_extra=_zh(
            "sft 学习问题的回答；pretrain 学习纯文本；semi 两者兼有；dpo 和 orpo 学习两个回答哪个更好，"
            "kto 从带有褒贬的单个回答中学习。也可以写插件的名称。"
        ),
    )
    method: Method = Field(
        "lora",
        description=(
            "What is changed: a notebook beside the pupil (lora, qlora), part of its mind (freeze), or all of it "
            "(full). Changing too much forgets more and needs memory; too little leaves no room for much new "
            "material."
        ),
        json_schema_extra=_zh(
            "改动什么：旁边的笔记本（lora、qlora）、头脑的一部分（freeze）或全部（full）。改得太多：忘得多、费内存；"
            "太少：装不下大量新内容。"
        ),
    )
    system: str = Field(
        "",
        description=(
            "The role the pupil plays in every lesson: system prompt to train with, saved with the model version and "
            "used by every engine. Too long: each answer costs more; empty: the role must follow from the examples."
        ),
        json_schema_extra=_zh(
            "每堂课上扮演的角色：训练时使用的系统提示，随模型版本保存，所有引擎都会使用。太长：每次回答都更费时；留空"
            "：角色要从样本中看出来。"
        ),
    )
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(_as_list)] = Field(
        ("none",),
        description=(
            "Trackers that are told the figures of the run, one or a list: wandb, swanlab, mlflow. "
            "TensorBoard's files are always written."
        ),
        json_schema_extra=_zh(
            "把训练数值告诉哪些跟踪工具，一个或多个：wandb、swanlab、mlflow。TensorBoard 文件总会写入。"
        ),
    )
    new_tokens: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description=(
            "Words the pupil is to read as one sign, such as <tool>. Each begins as the mean of the pieces it was read "
            "in before, and is learned. Too many with too few examples: they stay as vague as they began; none: they "
            "are spelled out, which always works."
        ),
        json_schema_extra=_zh(
            "要当作一个整体来认的词，例如 <tool>。每个新词从它原来各片段的平均值开始，再通过学习成形。"
            "太多而样本太少：始终含糊不清；不加：逐片拼读，总是可行。"
        ),
    )
    semi: SemiSection = SemiSection()
    lora: LoraSection = LoraSection()
    freeze: FreezeSection = FreezeSection()
    train: TrainSection = TrainSection()
    preference: PreferenceSection = PreferenceSection()
    eval: EvalSection = EvalSection()
    resources: ResourcesSection = ResourcesSection()


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe as it can be read from any folder: paths to a model folder and to probes made absolute.

    Names of the library stay names; files of rows are registered, so their paths do not matter later.
    """
    folder = Path(recipe.model).expanduser()
    # Qwen/Qwen2.5-0.5B-Instruct may be a folder here, or else the name that model hubs have for a model.
    is_path = recipe.model.startswith((".", "~")) or (len(folder.parts) > 1 and folder.is_dir())
    model = str(folder.resolve()) if is_path else recipe.model
    adapter = Path(recipe.lora.adapter or "").expanduser()
    if recipe.lora.adapter is not None and len(adapter.parts) > 1 and adapter.is_dir():
        lora = recipe.lora.model_copy(update={"adapter": str(adapter.resolve())})
        recipe = recipe.model_copy(update={"lora": lora})
    probes = recipe.eval.probes
    if probes is not None:
        probes = str(Path(probes).expanduser().resolve())
    return recipe.model_copy(update={"model": model, "eval": recipe.eval.model_copy(update={"probes": probes})})

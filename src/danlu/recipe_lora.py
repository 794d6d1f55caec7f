"""The sections ``lora`` and ``freeze`` of the recipe: what of the model learns. ``recipe`` refers to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from danlu.recipe_section import Auto, Section, as_list, zh

LoraInit = Literal["default", "pissa"]


class LoraSection(Section):
    """The low-rank matrices that learn while the model itself stays as it is."""

    adapter: str | None = Field(
        None,
        description=(
            "Go on from this adapter (a run, a version, or a folder in peft's format) instead of a fresh one: the "
            "pupil comes with what it has learned. Its shape comes along. With a learning rate too high it forgets the "
            "earlier lessons; too low, and nothing is added."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh(
            "秩：学生的笔记本有多厚。太薄：材料多了记不下；太厚：内存花在空白页上，偶然的东西也会记进去。"
        ),
    )
    lora_alpha: Auto | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description=(
            "How loudly the notes speak beside what the pupil knew: their output is multiplied by lora_alpha / r. Too "
            "loud: they drown it out; too quiet: they change nothing."
        ),
        json_schema_extra=zh(
            "笔记相对于原有知识的音量：其输出乘以 lora_alpha / r。太响：盖过原有知识；太轻：毫无作用。"
        ),
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "Share of what is noted that is covered up at random, so that the pupil does not cling to single words. "
            "Too high: it hears half of everything; 0 is right for small data and keeps the fast paths."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh(
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
        json_schema_extra=zh(
            "rsLoRA：lora_alpha 除以秩的平方根而不是秩，大的适配器才不会被压得没有声音。秩不小于 64 时值得用。"
        ),
    )
    use_dora: bool = Field(
        False,
        description=(
            "DoRA: how much and in which direction each matrix changes are learned apart. A little better at low "
            "rank, clearly slower."
        ),
        json_schema_extra=zh("DoRA：每个矩阵改多少、往哪个方向改，分开来学。秩低时略好，明显更慢。"),
    )
    init_lora_weights: LoraInit = Field(
        "default",
        description=(
            "How the adapter begins: default from nothing; pissa from the most important part of each matrix, which "
            "learns faster at first. The finished adapter has twice the rank."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh(
            "LoRA+：笔记的后半部分比前半部分写得快多少倍，常用 16。太高：写得潦草，需调低学习率；1：两半一样快。"
        ),
    )

    quantization_bit: Literal[4, 8] = Field(
        4,
        description=(
            "With method qlora: in how many bits the frozen model is kept. 4 needs least memory, 8 is more exact; "
            "both cost time on a CPU."
        ),
        json_schema_extra=zh(
            "method 为 qlora 时：冻结的模型用多少位保存。4 最省内存，8 更精确；在 CPU 上都要多花时间。"
        ),
    )


class FreezeSection(Section):
    """Which part of the model itself learns with ``method: freeze``."""

    layers: Auto | Annotated[int, Field(ge=-1000, le=1000)] = Field(
        "auto",
        description=(
            "How much of the pupil's mind learns: so many of the last layers; a negative number means the first ones. "
            "Too many: it forgets what it knew; too few: it cannot take the material in."
        ),
        json_schema_extra=zh(
            "头脑的多大部分参与学习：最后几层；负数表示最前面的几层。太多：忘了原来会的；太少：学不进去。"
        ),
    )
    modules: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description=(
            "Which faculties of these layers learn: weights whose names contain one of these words, such as mlp; "
            "empty for all. Fewer forget less and learn less."
        ),
        json_schema_extra=zh(
            "这些层中哪些能力参与学习：名称含有这些词（如 mlp）的权重；留空表示全部。越少，忘得越少，学得也越少。"
        ),
    )
    extra_modules: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description=(
            "What learns as well outside of the layers, such as embed_tokens (the vocabulary itself) or norm. Too "
            "much: the meaning of words shifts; nothing is right unless there are new words."
        ),
        json_schema_extra=zh(
            "各层之外还有什么参与学习，例如 embed_tokens（词汇本身）或 norm。太多：词义会漂移；没有新词就留空。"
        ),
    )

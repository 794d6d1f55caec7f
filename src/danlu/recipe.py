"""The recipe: what a person wants trained. One schema; help, manual, JSON Schema and web form are made from it.

A recipe is YAML, or nothing but ``key=value`` words. Most fields may be ``auto``; ``planning`` decides those.
Field descriptions stand in English here and in Chinese under ``json_schema_extra["zh"]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from danlu.plugins import is_objective
from danlu.recipe_lora import FreezeSection, LoraSection
from danlu.recipe_preference import PreferenceSection
from danlu.recipe_section import Auto, Section, as_list, zh
from danlu.recipe_semi import SemiSection
from danlu.recipe_train import TrainSection

Objective = Literal["sft", "pretrain", "semi", "dpo", "kto", "orpo"]
Method = Literal["lora", "qlora", "full", "freeze"]
Strategy = Literal["ddp", "fsdp", "zero1", "zero2", "zero3"]
Thinks = Literal["auto", "on", "off"]
Tracker = Literal["none", "tensorboard", "wandb", "swanlab", "mlflow"]


MOST_WEIGHT: Final = 100.0
"""Read more often than this, a row belongs into more epochs."""


class DataSection(Section):
    """Which examples are learned, and which are kept aside to measure on."""

    train: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description=(
            "The textbooks: names of data sets, or files, to learn from. Too few examples: the pupil learns sentences "
            "and not the subject; too mixed: it learns a little of everything."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh(
            "考题：留出用于衡量进展的样本比例（0 表示不留），或另外用来衡量的数据集或文件：此时 train 中的数据全部用于"
            "学习。太多：没剩多少可学；太少：成绩靠运气。"
        ),
    )
    weights: dict[str, Annotated[float, Field(gt=0, le=MOST_WEIGHT)]] = Field(
        {},
        description=(
            "How often each textbook of train is read in an epoch, by its name: 2 reads each row twice, 0.5 half of "
            "the rows, chosen by the seed; not named: once. Too high: its sentences are learned by heart; too low: it "
            "is drowned by the others."
        ),
        json_schema_extra=zh(
            "train 里每本课本一个轮次读几遍，按名称写：2 表示每条读两遍，0.5 表示按随机种子选一半来读；没写的读一遍。"
            "太高：把它的句子背下来；太低：被别的课本淹没。"
        ),
    )
    samples: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description=(
            "How many rows of a textbook of train are read, by its name, chosen by the seed after the rows to measure "
            "on; not named: all. Few keep a large one from drowning the others; too few: little of it is learned."
        ),
        json_schema_extra=zh(
            "train 里某本课本读多少条，按名称写，在留出考题之后按随机种子选；没写的全读。少些，大课本就不会淹没别的；"
            "太少：学到的也少。"
        ),
    )
    unlabelled: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description=(
            "Names of data sets, or files, of plain texts that are read beside the answers (objective semi). Too much "
            "of another kind than the questions, and the pupil's head is elsewhere; none, and it knows answers only."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh("每本课本从头读多少条；null 表示全部。少则试得快；太少只学到句子，学不到内容。"),
    )
    learn: Literal["all", "last"] = Field(
        "all",
        description=(
            "Which answers of a conversation are learned by heart: all of them, or only the last one, the others being "
            "context. Last only: several turns teach as much as one; all: poor early answers are learned as well."
        ),
        json_schema_extra=zh(
            "一段对话里哪些回答要学：全部（all），或只学最后一句（last），其余只当上下文。只学最后一句：多轮对话只抵一轮；"
            "全部：前面写得差的回答也会学进去。"
        ),
    )
    fill: dict[str, str] = Field(
        {},
        description=(
            "Blanks in the textbooks: what placeholders such as {{name}} in files stand for. Left out, the pupil would "
            "introduce itself as {{name}}; wrong, it learns a wrong name by heart."
        ),
        json_schema_extra=zh(
            "课本里的空格：文件中 {{name}} 这样的占位符代表什么。不填：学生会自称 {{name}}；填错：把错的名字背下来。"
        ),
    )


class EvalSection(Section):
    """How progress is watched."""

    every: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description=(
            "Lessons (optimizer steps) between two exams. Too many: the best moment is missed; too few: more time "
            "goes into exams than into learning."
        ),
        json_schema_extra=zh("两次考试之间上多少课（优化步）。太多：错过最好的时刻；太少：考试比学习还花时间。"),
    )
    early_stopping: Auto | bool = Field(
        "auto",
        description=(
            "End the course when three exams in a row bring nothing better, and keep the best state. Without it the "
            "pupil may go on to reciting by heart; with a noisy exam it may end too early."
        ),
        json_schema_extra=zh(
            "连续三次考试没有进步就结束课程，并保留最佳状态。不用：可能学成死记硬背；考题太少而波动时：可能结束得太早。"
        ),
    )
    probes: str | None = Field(
        None,
        description=(
            "File of oral exam questions (JSON Lines) asked before, during and after training. Too few prove nothing; "
            "questions from the textbook itself prove only memory."
        ),
        json_schema_extra=zh(
            "口试题文件（JSON Lines），在训练前、中、后提问。太少：说明不了什么；直接取自课本：只能证明记性。"
        ),
    )


class ResourcesSection(Section):
    """What the run may use."""

    devices: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description=(
            "How many desks the pupil works at: devices. More is faster, as long as there are enough rows for each."
        ),
        json_schema_extra=zh("学生用几张书桌：设备数量。多则快，前提是每张桌上都有足够的数据。"),
    )
    strategy: Auto | Strategy = Field(
        "auto",
        description=(
            "How the desks share the books. ddp: each desk has all of them, the fastest where there is room; zero1, "
            "zero2: the notes of the corrections are divided; fsdp, zero3: the books are divided too, which needs the "
            "least room and the most talking between desks."
        ),
        json_schema_extra=zh(
            "各书桌如何分书。ddp：每桌一整套，放得下时最快；zero1、zero2：批改的记录分开放；fsdp、zero3：书也分开放，最省地方，"
            "但桌与桌之间要说的话最多。"
        ),
    )
    offload: bool = Field(
        False,
        description=(
            "Put away in the cupboard (the computer's memory) what a desk (a GPU) does not need at the moment. Saves "
            "room on the desk, costs time; without a GPU it changes nothing."
        ),
        json_schema_extra=zh("书桌（显卡）一时用不到的先放进柜子（内存）。省桌面，费时间；没有显卡时没有区别。"),
    )


class Recipe(Section):
    """Everything a person decides about a run."""

    model: str = Field(
        description=(
            "The pupil: a base model, a name of the catalogue or a folder. Too big: slow, or no room; too small: it "
            "cannot follow the material."
        ),
        json_schema_extra=zh("学生：基座模型，目录中的名称或一个文件夹。太大：慢，或者内存装不下；太小：跟不上材料。"),
    )
    data: DataSection
    objective: Objective | Annotated[str, AfterValidator(is_objective)] = Field(
        "sft",
        description=(
            "sft learns answers to questions; pretrain learns plain text; semi does both; dpo and orpo learn which of "
            "two answers is better, kto from single answers with praise or blame. Or the name of a plug-in."
        ),
        json_schema_extra=zh(
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
        json_schema_extra=zh(
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
        json_schema_extra=zh(
            "每堂课上扮演的角色：训练时使用的系统提示，随模型版本保存，所有引擎都会使用。太长：每次回答都更费时；留空"
            "：角色要从样本中看出来。"
        ),
    )
    chat_template: str = Field(
        "auto",
        description=(
            "The form in which lessons are written down: auto (the model's own chat template, or ChatML for a base "
            "model that has none), chatml, plain, or the path of a Jinja template. Another form than the model knows: "
            "it has to learn the form as well."
        ),
        json_schema_extra=zh(
            "课文的书写格式：auto（用模型自带的对话模板；没有模板的基座模型用 ChatML）、chatml、plain，或一个 Jinja "
            "模板文件的路径。换成模型不熟悉的格式：它还得先学会格式。"
        ),
    )
    thinking: Thinks = Field(
        "auto",
        description=(
            "Whether a pupil that can think aloud (<think>) does so. auto: where the examples carry reasoning it is "
            "learned, otherwise answers follow an empty think block that is not; off leaves reasoning in the examples "
            "out; on with plain examples unlearns thinking. Models without think blocks have no such choice."
        ),
        json_schema_extra=zh(
            "会把思考写出来（<think>）的学生是否这样做。auto：样本带推理就学推理，否则在不学习的空思考块之后作答；off"
            "会略去样本中的推理；on 而样本都是直接作答：会忘掉思考。没有思考块的模型不受影响。"
        ),
    )
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(as_list)] = Field(
        ("none",),
        description=(
            "Trackers that are told the figures of the run, one or a list: wandb, swanlab, mlflow. "
            "TensorBoard's files are always written."
        ),
        json_schema_extra=zh(
            "把训练数值告诉哪些跟踪工具，一个或多个：wandb、swanlab、mlflow。TensorBoard 文件总会写入。"
        ),
    )
    new_tokens: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description=(
            "Words the pupil is to read as one sign, such as <tool>. Each begins as the mean of the pieces it was read "
            "in before, and is learned. Too many with too few examples: they stay as vague as they began; none: they "
            "are spelled out, which always works."
        ),
        json_schema_extra=zh(
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
    if recipe.chat_template not in {"auto", "chatml", "plain"}:
        recipe = recipe.model_copy(update={"chat_template": str(Path(recipe.chat_template).expanduser().resolve())})
    return recipe.model_copy(update={"model": model, "eval": recipe.eval.model_copy(update={"probes": probes})})

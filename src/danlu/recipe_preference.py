"""The recipe's section on preference objectives; a part of the schema in ``recipe``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from danlu.recipe_section import Auto, Section, zh


class PreferenceSection(Section):
    """How the pupil learns which of two answers is the better one (objectives dpo, kto and orpo)."""

    beta: Auto | Annotated[float, Field(gt=0, le=100)] = Field(
        "auto",
        description=(
            "How tightly the pupil is held to what it knew before (of orpo: how much the comparison counts beside the "
            "answer itself). Too high: it hardly dares to change; too low: it runs after the praise and forgets how to "
            "speak."
        ),
        json_schema_extra=zh(
            "拉住它不偏离原有本领的力度（orpo 中：比较相对于答案本身占多大分量）。"
            "太高：几乎不敢改变；太低：一味讨好，连话都不会好好说了。"
        ),
    )
    loss_type: Literal["sigmoid", "ipo"] = Field(
        "sigmoid",
        description=(
            "Of dpo: sigmoid presses on while a pair is not clearly decided; ipo stops at a fixed lead, so that few or "
            "doubtful pairs are not overdone."
        ),
        json_schema_extra=zh(
            "用于 dpo：sigmoid 在一对答案没有明显分出高下前一直用力；"
            "ipo 领先到一定程度就停，数据少或判断存疑时不会学过头。"
        ),
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0,
        description=(
            "Of dpo: share of the judgements that are taken to be wrong, so that the pupil does not trust the marker "
            "blindly. 0.1 suits hasty judgements; too high, and it takes no lesson seriously."
        ),
        json_schema_extra=zh(
            "用于 dpo：假定有多少比例的评判是错的，免得盲目相信阅卷人。评判匆忙时可用 0.1；太高，什么教训都不当真。"
        ),
    )
    rpo_alpha: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None,
        description=(
            "Of dpo: how much the chosen answer itself is practised beside the comparison; 1 is the usual value. Too "
            "low: it may learn only what not to say; too high: it copies the answer and forgets the comparison."
        ),
        json_schema_extra=zh(
            "用于 dpo：除了比较，还要把被选中的答案本身练多少，常用 1。"
            "太低：可能只学会不说什么；太高：只顾抄答案，忘了比较。"
        ),
    )
    desirable_weight: Auto | Annotated[float, Field(gt=0, le=100)] = Field(
        "auto",
        description="Of kto: how much praise counts. Too high beside blame: it repeats what it is good at already.",
        json_schema_extra=zh("用于 kto：表扬的分量。比批评高太多：只会重复已经会的。"),
    )
    undesirable_weight: Auto | Annotated[float, Field(gt=0, le=100)] = Field(
        "auto",
        description="Of kto: how much blame counts. Too high beside praise: it only learns to avoid, and falls silent.",
        json_schema_extra=zh("用于 kto：批评的分量。比表扬高太多：只学会回避，最后什么也不说。"),
    )

"""The section ``semi`` of the recipe: what is learned beside the answers. ``recipe`` refers to it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from danlu.recipe_section import Auto, Section, zh


class SemiSection(Section):
    """How plain texts are learned beside answers with ``objective: semi``."""

    text_weight: Auto | Annotated[float, Field(gt=0, le=10)] = Field(
        "auto",
        description=(
            "How much reading counts beside answering. Too high: the pupil tells stories instead of answering; "
            "too low: it has read for nothing."
        ),
        json_schema_extra=zh("阅读与答题相比占多大分量。太高：不答题，只顾复述文章；太低：书白读了。"),
    )
    texts_per_step: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto",
        description=(
            "Packed pieces of text read before each correction, beside the answers. Too many: each step takes long; "
            "too few: much of the text is never read."
        ),
        json_schema_extra=zh("每次纠正前，除答案外还读几段装满的文本。太多：每步很慢；太少：很多文本读不到。"),
    )

"""The written rules for plain texts learned beside answers (``objective: semi``), and the plan with them decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from danlu.data.examples import Example
from danlu.errors import RecipeError
from danlu.planning.plan import Decision, Notice, Plan
from danlu.planning.rules import Choice
from danlu.recipe import Recipe

_TEXT_WEIGHT: Final = 0.5
_MOST_TEXTS: Final = 4
_MOST_LENGTH: Final = 1024


def text_length(plan: Plan) -> int:
    """Return the length that texts are cut and packed to: what is computed at once, at most 1024 tokens.

    Of nothing but the plan, so that a run that is reopened has the same texts.
    """
    return min(plan.max_length, plan.settings.token_budget, _MOST_LENGTH)


def text_weight() -> Choice:
    """0.5: what Radford et al. 2018 ("Improving language understanding by generative pre-training") give the text
    loss beside that of the task when they fine-tune on both.
    """  # noqa: D205 - the title of the paper needs the line
    return Choice(_TEXT_WEIGHT, "planning.semi_weight")


def texts_per_step(texts: int, steps: int) -> Choice:
    """As many as go through the texts once in the run, 1 to 4.

    At most 4 because a packed text has as many learned tokens as dozens of answers: more would make a step, whose
    answers are what the run is for, several times as long.
    """
    return Choice(min(_MOST_TEXTS, max(1, math.ceil(texts / steps))), "planning.semi_texts", {"texts": texts})


def require_semi(recipe: Recipe) -> None:
    """Check that what is to be learned beside answers is named, and learned.

    Raises:
        RecipeError: one without the other, or with smoothed targets, which the two means do not have.
    """
    if recipe.objective != "semi":
        if recipe.data.unlabelled:
            raise RecipeError("planning.unlabelled_without_semi", "data.unlabelled", objective=recipe.objective)
        return
    if not recipe.data.unlabelled:
        raise RecipeError("planning.semi_without_texts", "data.unlabelled")
    if recipe.train.label_smoothing_factor:
        raise RecipeError("planning.semi_with_smoothing", "train.label_smoothing_factor")


def decide_semi(plan: Plan, recipe: Recipe, examples: Sequence[Example]) -> Plan:
    """Return the plan with what each step holds of both kinds, and what the texts count.

    Args:
        plan: everything else decided.
        recipe: what the person wants.
        examples: answers and texts.
    """
    texts = sum(example.text for example in examples)
    settings, decisions = plan.settings, list(plan.decisions)
    values: dict[str, float | int] = {}
    for name, wished, rule in (
        ("text_weight", recipe.semi.text_weight, text_weight()),
        ("texts_per_step", recipe.semi.texts_per_step, texts_per_step(texts, settings.steps)),
    ):
        field, chosen = f"semi.{name}", wished != "auto"
        value = rule.value if wished == "auto" else wished
        if chosen:
            decisions.append(Decision(field=field, value=value, by="recipe", reason="planning.chosen"))
        else:
            decisions.append(Decision(field=field, value=value, by="danlu", reason=rule.reason, params=rule.params))
        values[name] = value if isinstance(value, int | float) else 0
    read = values["texts_per_step"] * settings.steps / texts
    notice = Notice(
        code="planning.notice_semi",
        params={
            "answers": settings.batch_size, "texts": int(values["texts_per_step"]), "passes": round(read, 2),
        },
    )  # fmt: skip
    return plan.model_copy(
        update={
            "settings": settings.model_copy(update=values),
            "decisions": tuple(decisions),
            "notices": (*plan.notices, notice),
        }
    )

"""The written rules of semi-supervised training: for texts learned beside answers, and for answers of a model.

The first is ``objective: semi``, with the plan decided by its rules; the second is ``danlu pseudo-label``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from danlu.data.examples import Example
from danlu.data.table import supervised_of, texts_of
from danlu.errors import RecipeError
from danlu.planning.plan import Decider, Notice, Plan
from danlu.planning.rules import Choice
from danlu.recipe import Recipe

_TEXT_WEIGHT: Final = 0.5
_MOST_TEXTS: Final = 4
_MOST_LENGTH: Final = 1024

SAMPLES: Final = 5
"""Answers to each question. Wang et al. 2022 (arXiv 2203.11171, figure 2) gain most of what agreement gives with the
first five to ten samples; on a plain CPU each costs as much as the first."""

TEMPERATURE: Final = 0.7
"""Of all samples but the first: what Wang et al. 2022 (section 3.1) draw with."""

LEAST_AGREEMENT: Final = 0.6
"""Mean similarity of the samples (``evaluation.agreement``) from which the kept answer is accepted. Own rule: answers
that say the same lie above it, answers that share no more than the question's words below. Measured on ten questions to
a model of 135M that had learned 106 rows: 1.0 where it knew the answer, 0.20 to 0.49 where it made one up."""

LEAST_CONFIDENCE: Final = 0.5
"""Mean probability of a token of the kept answer (geometric) from which it is accepted. Own rule: below it the model
holds each token for less likely than all others together. A second look, not the first: in the same measurement a wrong
answer had 0.98."""

_ROOM: Final = 2
_MOST_ANSWER: Final = 512


def label_weight(agreement: float, confidence: float) -> float:
    """Return how much a pseudo label counts beside a person's answer, which counts 1: agreement times confidence.

    Own rule: both run from 0 to 1, and doubt of either kind should count. That labels should weigh by how sure the
    model is, and not all alike, goes back to Lee 2013 ("Pseudo-Label", a weight on the loss of all of them) and
    Rizve et al. 2021 (arXiv 2101.06329, thresholds on confidence and on uncertainty at once).
    """
    return round(agreement * confidence, 4)


def answer_room(learned: Sequence[Example], shortest: int) -> int:
    """Return how many tokens an answer to be kept may have: twice the longest learned one, at most 512.

    An answer that is cut off is never accepted, so there is room for more than was ever taught.
    """
    return min(_MOST_ANSWER, max(shortest, _ROOM * max(supervised_of(learned).tolist(), default=0)))


def require_unsmoothed(recipe: Recipe, weighed: int) -> None:
    """Check that targets are not to be smoothed where rows weigh differently: the weighed mean does not smooth.

    Args:
        recipe: what the person wants.
        weighed: rows that count less than others.

    Raises:
        RecipeError: both are asked for.
    """
    if weighed and recipe.train.label_smoothing_factor:
        raise RecipeError("planning.weights_with_smoothing", "train.label_smoothing_factor", rows=weighed)


def text_length(plan: Plan) -> int:
    """Return the length that texts are cut and packed to: what is computed at once, at most 1024 tokens.

    Of nothing but the plan, so that a run that is reopened has the same texts.
    """
    return min(plan.max_length, plan.settings.token_budget, _MOST_LENGTH)


def text_weight() -> Choice:
    """0.5: what the text loss counts beside that of the task where both were first fine-tuned on.

    Radford et al. 2018, "Improving language understanding by generative pre-training", section 4.1.
    """
    return Choice(_TEXT_WEIGHT, "planning.semi_weight")


def texts_per_step(texts: int, steps: int) -> Choice:
    """As many as go through the texts once in the run, 1 to 4.

    At most 4 because a packed text has as many learned tokens as dozens of answers: more would make a step, whose
    answers are what the run is for, several times as long.
    """
    return Choice(min(_MOST_TEXTS, max(1, math.ceil(texts / steps))), "planning.semi_texts", {"texts": texts})


def decide_semi(plan: Plan, recipe: Recipe, examples: Sequence[Example]) -> Plan:
    """Return the plan with what each step holds of both kinds, and what the texts count.

    Args:
        plan: everything else decided.
        recipe: what the person wants.
        examples: answers and texts.
    """
    texts = int(texts_of(examples).sum())
    settings, decider = plan.settings, Decider(plan.decisions)
    weight = decider.decide("semi.text_weight", recipe.semi.text_weight, text_weight())
    count = decider.decide("semi.texts_per_step", recipe.semi.texts_per_step, texts_per_step(texts, settings.steps))
    notice = Notice(
        code="planning.notice_semi",
        params={"answers": settings.batch_size, "texts": count, "passes": round(count * settings.steps / texts, 2)},
    )
    return plan.model_copy(
        update={
            "settings": settings.model_copy(update={"text_weight": weight, "texts_per_step": count}),
            "decisions": tuple(decider.decisions),
            "notices": (*plan.notices, notice),
        }
    )

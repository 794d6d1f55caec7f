"""Decides whether what examples begin with alike is computed once for all; looks at the very steps of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from danlu.data.batches import computed_tokens, mixed_members
from danlu.data.examples import Example
from danlu.planning.plan import Decider, Notice, Plan
from danlu.planning.rules import Choice
from danlu.recipe import Recipe
from danlu.training.settings import TrainSettings

# Below it the attention that a tree of segments needs takes about what the fewer tokens save.
_WORTH: Final = 1.15
_STEPS_LOOKED_AT: Final = 20
FIELD: Final = "train.share_prefix"


def decide_sharing(plan: Plan, recipe: Recipe, examples: Sequence[Example], *, fast_path: bool) -> Plan:
    """Return the plan with the decision in its settings; where nothing can be packed, it says that too.

    Args:
        plan: everything else decided.
        recipe: what the person wants.
        examples: what is learned.
        fast_path: whether the model can be trained packed (``training.forward.has_fast_path``).
    """
    settings, wished, notices = plan.settings, recipe.train.share_prefix, plan.notices
    if not fast_path:
        wished, rule = "auto", Choice(False, "planning.share_plain_path")
        notices = (*notices, Notice(code="planning.notice_plain_path"))
    elif settings.lora.lora_dropout or settings.neftune_noise_alpha:
        wished, rule = "auto", Choice(False, "planning.share_impossible")
    else:
        factor = sharing_factor(examples, settings)
        worth = factor >= _WORTH
        rule = Choice(worth, "planning.share_on" if worth else "planning.share_off", {"factor": round(factor, 2)})
    decider = Decider(plan.decisions)
    share = bool(decider.decide(FIELD, wished, rule))
    return plan.model_copy(
        update={
            "settings": settings.model_copy(update={"share_prefix": share}),
            "decisions": tuple(decider.decisions),
            "notices": notices,
        }
    )


def sharing_factor(examples: Sequence[Example], settings: TrainSettings) -> float:
    """Return how many times fewer tokens the run computes when beginnings are shared."""
    few = min(settings.steps, _STEPS_LOOKED_AT)
    steps = mixed_members(examples, settings.batch_size, settings.texts_per_step, settings.seed, few)
    members = [[examples[index] for index in step] for step in steps]
    shared, plain = (computed_tokens(members, settings.token_budget, share_prefix=share) for share in (True, False))
    return plain / shared

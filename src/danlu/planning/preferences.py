"""The plan's part on preference objectives: their settings decided, and what does not go with them refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from danlu.errors import RecipeError
from danlu.planning import preference_rules
from danlu.planning.facts import DataFacts
from danlu.planning.rules import Choice
from danlu.recipe import Recipe
from danlu.recipe_preference import PreferenceSection
from danlu.training.preference_settings import PreferenceObjectiveName, PreferenceSettings

PREFERENCES: Final[tuple[PreferenceObjectiveName, ...]] = ("dpo", "kto", "orpo")
# Which fields of the section each objective looks at.
_READ: Final = {
    "dpo": {"beta", "loss_type", "label_smoothing", "rpo_alpha"},
    "kto": {"beta", "desirable_weight", "undesirable_weight"},
    "orpo": {"beta"},
}


def preference_objective(recipe: Recipe) -> PreferenceObjectiveName | None:
    """Return the recipe's objective if it learns from judged answers."""
    match recipe.objective:
        case "dpo" | "kto" | "orpo" as name:
            return name
        case _:
            return None


def decide_preference(
    wish: PreferenceSection,
    objective: PreferenceObjectiveName,
    data: DataFacts,
    decide: Callable[[str, float | str, Choice], Any],
) -> PreferenceSettings:
    """Decide the section of a recipe with a preference objective.

    Args:
        wish: what the person wants.
        objective: which objective.
        data: the judged answers in numbers.
        decide: takes the person's value or the rule's, and notes which.
    """
    beta = decide("preference.beta", wish.beta, preference_rules.beta(objective))
    settings = PreferenceSettings(
        objective=objective,
        beta=beta,
        loss_type=wish.loss_type,
        label_smoothing=wish.label_smoothing,
        rpo_alpha=wish.rpo_alpha,
    )
    if objective != "kto":
        return settings
    assert data.judged is not None
    good, bad = preference_rules.weights(data.judged)
    return settings.model_copy(
        update={
            "desirable_weight": decide("preference.desirable_weight", wish.desirable_weight, good),
            "undesirable_weight": decide("preference.undesirable_weight", wish.undesirable_weight, bad),
        }
    )


def require_preference(recipe: Recipe) -> None:
    """Check that the section asks for nothing that the objective does not do.

    Raises:
        RecipeError: it does; the message names the field.
    """
    plain = PreferenceSection()
    read: set[str] = _READ.get(recipe.objective, set())
    for field in PreferenceSection.model_fields:
        if field not in read and getattr(recipe.preference, field) != getattr(plain, field):
            fitting = ", ".join(name for name, fields in _READ.items() if field in fields)
            where = f"preference.{field}"
            raise RecipeError("planning.preference_unused", where, objective=recipe.objective, fitting=fitting)
    if recipe.objective == "dpo" and recipe.preference.loss_type == "ipo" and recipe.preference.label_smoothing:
        raise RecipeError("planning.ipo_smoothing", "preference.label_smoothing")
    if read and recipe.train.label_smoothing_factor:
        raise RecipeError("planning.judged_smoothing", "train.label_smoothing_factor", objective=recipe.objective)

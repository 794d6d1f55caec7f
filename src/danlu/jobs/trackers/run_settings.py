"""What trackers are told of a run besides its figures: names and numbers of the plan, never prompts or paths."""

from __future__ import annotations

from danlu import __version__
from danlu.planning.plan import Plan
from danlu.recipe import Recipe


def settings_of(recipe: Recipe, plan: Plan) -> dict[str, object]:
    """Return what a run is trained with, grouped."""
    return {
        "danlu": __version__,
        "model": plan.model,
        "objective": recipe.objective,
        "method": recipe.method,
        "datasets": [f"{item.name}@{item.version}" for item in plan.datasets],
        "data": {**plan.data.model_dump(mode="json"), "holdout_share": plan.holdout_share},
        "epochs": plan.epochs,
        "max_length": plan.max_length,
        "thinking": plan.thinking,
        "train": plan.settings.model_dump(mode="json"),
        "predicted": None if plan.prediction is None else plan.prediction.model_dump(mode="json"),
    }

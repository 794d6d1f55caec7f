"""Objectives and optimizers that plug-ins bring: made, and checked to be what the loop needs."""

from __future__ import annotations

from typing import Any, Final, Protocol, cast, get_args

import torch

from danlu.plugins import Plugin, find
from danlu.recipe import Objective as OwnObjective
from danlu.training.objectives import Objective, objective_of
from danlu.training.preferences import PreferenceObjective, Reference
from danlu.training.settings import TrainSettings

_OWN: Final = frozenset(get_args(OwnObjective))
_METHODS: Final = {"pieces": 3, "loss": 3, "heldout_loss": 3}


class OptimizerFactory(Protocol):
    """Makes an optimizer (entry point group ``danlu.optimizers``); a class derived from torch's is one."""

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return an optimizer for groups of weights.

        The loop sets ``lr`` of each group before each step. What is kept for a weight (``optimizer.state[weight]``)
        must be tensors and numbers under names: they go into checkpoints, and a resumed run goes on from them.

        Args:
            groups: each with ``params``, ``weight_decay`` and ``faster`` (a factor that the loop has put into ``lr``).
        """


def objective_named(name: str, settings: TrainSettings, reference: Reference) -> Objective:
    """Return the objective of a plan: a mean over tokens, a comparison of answers, or a plug-in's.

    Args:
        name: what the plan calls it.
        settings: what the plan has decided for it.
        reference: what judged answers are compared with; nothing else looks at it.

    Raises:
        PluginError: it comes from a plug-in that is gone or broken; the message names the package.
    """
    if settings.preference is not None:
        return PreferenceObjective(settings.preference, reference)
    return objective_of(settings) if name in _OWN else made_objective(find("danlu.objectives", name))


def require_objective(name: str) -> None:
    """Import the objective of a recipe, if a plug-in brings it, before anything is fetched.

    Raises:
        PluginError: it is gone or broken; the message names the package.
    """
    if name not in _OWN:
        made_objective(find("danlu.objectives", name))


def made_objective(plugin: Plugin) -> Objective:
    """Import an objective and check that it is one.

    Raises:
        PluginError: it is not.
    """
    made = plugin.make()
    plugin.require(made, _METHODS)
    return cast("Objective", made)


def optimizer_named(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return an optimizer that a plug-in brings.

    Raises:
        PluginError: it is gone or broken; the message names the package.
    """
    plugin = find("danlu.optimizers", name)
    made = plugin.make(groups)
    if not isinstance(made, torch.optim.Optimizer):
        raise plugin.broken(f"{plugin.entry.value} gave a {type(made).__name__}, not a torch.optim.Optimizer")
    return made

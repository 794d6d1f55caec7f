"""Objectives and optimizers that plug-ins bring: made, and checked to be what the loop needs."""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

import torch

from danlu.plugins import Plugin, find
from danlu.training.objectives import Objective, TokenMean

BUILT_IN: Final = frozenset({"sft", "pretrain", "semi", "dpo", "kto", "orpo"})
_TOKEN_MEAN: Final = frozenset({"sft", "pretrain"})
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


def objective_named(name: str) -> Objective:
    """Return the objective of a plan: the mean over tokens, or a plug-in's.

    Those that compare answers need scores of the untouched model and are made where these are (``jobs.pipeline``).

    Raises:
        PluginError: it comes from a plug-in that is gone or broken; the message names the package.
    """
    return TokenMean() if name in _TOKEN_MEAN else made_objective(find("danlu.objectives", name))


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

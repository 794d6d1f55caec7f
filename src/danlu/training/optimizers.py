"""The optimizers a run may use, under one roof: one learning rate a step, states saved by the names of the weights.

``adamw`` is PyTorch's fused AdamW; ``adamw_8bit`` keeps its two values a weight in 8 bits (bitsandbytes,
arXiv 2110.02861); ``adafactor`` keeps a row and a column instead of a matrix (arXiv 1804.04235); ``muon``
orthogonalises the update of each matrix (arXiv 2502.16982) and leaves all else to AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import torch

from danlu.training.plugged import optimizer_named
from danlu.training.settings import TrainSettings

_LORA_B: Final = ".lora_B."
# torch's Adafactor multiplies each update by the size of the weights, but at least by this. A fresh adapter's second
# matrix is zero: without it, it would hardly move. With it, the learning rate means what it means for AdamW.
_ADAFACTOR_LEAST: Final = 1.0


class Optimizers:
    """What updates the trained weights of a model.

    Args:
        parameters: the trained weights by name.
        settings: which optimizer, its weight decay, and how much faster an adapter's second matrix learns.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], settings: TrainSettings) -> None:
        self._parts: list[torch.optim.Optimizer] = []
        if settings.optim == "muon":
            matrices = {name: value for name, value in parameters.items() if value.ndim == 2}
            others = {name: value for name, value in parameters.items() if value.ndim != 2}
            self._add("muon", matrices, settings)
            self._add("adamw", others, settings)
        else:
            self._add(settings.optim, parameters, settings)

    def step(self, rate: float) -> None:
        """Update all weights by their gradients with a learning rate, and forget the gradients."""
        self.set_rate(rate)
        for part in self._parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["faster"]

    def single(self) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer itself, for what lays it out; of a kind that is made of one."""
        (part,) = self._parts
        return part

    def state(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """Return what is kept for a weight: tensors and numbers by name; empty before its first update."""
        return next((dict(part.state[parameter]) for part in self._parts if parameter in part.state), {})

    def put_state(self, parameter: torch.nn.Parameter, state: Mapping[str, Any]) -> None:
        """Put back what ``state`` returned."""
        for part in self._parts:
            if any(parameter is own for group in part.param_groups for own in group["params"]):
                part.state[parameter] = dict(state)

    def _add(self, kind: str, parameters: Mapping[str, torch.nn.Parameter], settings: TrainSettings) -> None:
        faster = settings.lora.loraplus_lr_ratio or 1.0
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, value in parameters.items():
            # Norms, biases and magnitudes are not pulled towards zero.
            decay = settings.weight_decay if value.ndim > 1 else 0.0
            groups.setdefault((faster if _LORA_B in name else 1.0, decay), []).append(value)
        if groups:
            kinds = [{"params": group, "faster": by, "weight_decay": decay} for (by, decay), group in groups.items()]
            self._parts.append(_make(kind, kinds))


def _make(kind: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if kind == "adamw_8bit":
        adamw = import_module("bitsandbytes.optim").AdamW8bit
        eight_bit: torch.optim.Optimizer = adamw(groups, lr=0.0)
        return eight_bit
    if kind == "adafactor":
        return torch.optim.Adafactor(groups, lr=0.0, eps=(None, _ADAFACTOR_LEAST))
    if kind == "muon":
        # Scaled to the size of AdamW's updates, so that one learning rate fits both.
        return torch.optim.Muon(groups, lr=0.0, adjust_lr_fn="match_rms_adamw")
    if kind != "adamw":
        return optimizer_named(kind, groups)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)

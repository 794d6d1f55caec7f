"""Every process has the whole model and computes a share of each step; gradients are added up once a step.

Not PyTorch's ``DistributedDataParallel``: it adds gradients up while a process still computes, so that memory which
runs out in one process leaves the others waiting. Here all know of it, and do the step again in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import distributed

from danlu.data.examples import Example
from danlu.training.ranks.base import Item, Ranks

# Gradients are sent in parcels of about this many numbers: small ones wait for each other, large ones need memory.
_PARCEL: Final = 1 << 22


class Replicated(Ranks):
    """Processes of a group that has been made (``torch.distributed`` is ready)."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def share(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Return a share: the longest examples first, each to the process that has least to do."""
        load = [0] * self.size
        mine: list[Example] = []
        for example in sorted(examples, key=lambda item: len(item.input_ids), reverse=True):
            least = load.index(min(load))
            load[least] += len(example.input_ids)
            if least == self.rank:
                mine.append(example)
        return mine

    def combine(self, loss: float | None) -> float | None:
        """Add up loss and gradients, unless memory ran out somewhere."""
        told = self._sum(torch.tensor([0.0 if loss is None else loss, loss is None], dtype=torch.float64))
        if told[1]:
            return None
        self._add_gradients(self._parameters)
        return float(told[0])

    def agree(self, value: Item) -> Item:
        """Return what the first process says."""
        said: list[Any] = [value]
        distributed.broadcast_object_list(said, src=0)
        return said[0]  # type: ignore[no-any-return]

    def collect(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, [*items])
        return [item for part in found for item in part]

    def _add_gradients(self, parameters: Sequence[torch.nn.Parameter], factor: float = 1.0) -> None:
        """Give every process the sum of all gradients, times a factor; what one has not computed counts as zero."""
        parcel: list[torch.nn.Parameter] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parcel.append(parameter)
            if sum(item.numel() for item in parcel) >= _PARCEL:
                self._send(parcel, factor)
                parcel = []
        if parcel:
            self._send(parcel, factor)

    def _send(self, parcel: Sequence[torch.nn.Parameter], factor: float) -> None:
        gradients = [parameter.grad for parameter in parcel if parameter.grad is not None]
        total = self._sum(torch.cat([gradient.float().flatten() for gradient in gradients])).mul_(factor)
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        distributed.all_reduce(values)
        return values

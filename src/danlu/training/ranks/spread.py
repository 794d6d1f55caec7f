"""What the layouts have in common in which weights are spread: a way in for the passes, and steps side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import distributed, nn

from danlu.training.ranks.base import Item, Result
from danlu.training.ranks.replicated import Replicated


class Entrance(nn.Module):
    """A model around which a layout can put its hooks although the loss is not what the model's ``forward`` returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any]:
        """Call a function that passes through the model; DeepSpeed wants a tuple, whatever is in it."""
        return (function(*arguments),)


class Spread(Replicated):
    """Each process has a part of the weights: each pass brings a layer together, in all processes at the same time.

    A process whose memory runs out therefore leaves the others in the middle of a pass: there is no way back from
    there but the newest checkpoint. A person is heard after a measurement, not within.
    """

    breakable = False

    _entrance: nn.Module

    def compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that passes through the model."""
        (result,) = self._entrance(function, *arguments)
        return result  # type: ignore[no-any-return]

    def rounds(self, pieces: Sequence[Item], spare: Item) -> Iterator[tuple[Item, bool]]:
        """Return as many pieces in every process, with ones that do not count where there are too few."""
        most = torch.tensor(len(pieces))
        distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
        for piece in pieces:
            yield piece, True
        for _ in range(int(most) - len(pieces)):
            yield spare, False

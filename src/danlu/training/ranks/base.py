"""What the loop asks of the processes that train together; with one process the answers are the plain ones.

Which examples belong to an optimizer step never depends on how many processes there are: each computes a share of
them, and a step's loss and gradient are the sums over the shares. Measurements are made by every process alike, so
that what follows from them is decided everywhere in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import torch

from danlu.data.examples import Example
from danlu.training.optimizers import Optimizers
from danlu.training.settings import TrainSettings
from danlu.training.tensors import Stored
from danlu.training.trained import TrainedModel, trainable

Result = TypeVar("Result")
Item = TypeVar("Item")

# So far apart are the seeds of two processes: further than a run has steps.
SEED_STRIDE: Final = 1_000_003


class Keeper(Protocol):
    """What keeps the optimizer's values of each weight."""

    def state(self, parameter: torch.nn.Parameter) -> Mapping[str, Stored | float]:
        """Return what is kept for a weight, by name; empty before its first update."""

    def put_state(self, parameter: torch.nn.Parameter, state: Mapping[str, torch.Tensor | float]) -> None:
        """Put back what ``state`` returned."""


class Ranks:
    """One process that computes everything by itself; the others are its subclasses.

    Attributes:
        rank: which of the processes this is; the first speaks for all and writes the files.
        size: how many there are.
        breakable: whether a pass through the model can be broken off, where memory runs out or a person stops the run.
    """

    rank: int = 0
    size: int = 1
    breakable: bool = True

    _optimizer: Optimizers
    _parameters: list[torch.nn.Parameter]

    def begin(self, model: TrainedModel, settings: TrainSettings) -> Keeper:
        """Lay the weights out among the processes, and make what updates them.

        Args:
            model: the whole model, as the run begins or goes on.
            settings: method, optimizer and precision.
        """
        self._parameters = [*trainable(model).values()]
        self._optimizer = Optimizers(trainable(model), settings)
        return self._optimizer

    @property
    def main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that passes through the model: where weights are spread, this brings them together."""
        return function(*arguments)

    def share(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Return those examples of a step that this process computes; may be none."""
        return examples

    def rounds(self, pieces: Sequence[Item], spare: Item) -> Iterable[tuple[Item, bool]]:
        """Return what is computed for a step, and of each whether it counts.

        Args:
            pieces: what this process has to compute.
            spare: what it computes where others have more pieces and must not be left waiting.
        """
        del spare
        return ((piece, True) for piece in pieces)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a piece."""
        loss.backward()  # type: ignore[no-untyped-call]

    def combine(self, loss: float | None) -> float | None:
        """Return the loss of the whole step, and leave its gradients; None when memory ran out in any process.

        Args:
            loss: that of this process's share; None when memory ran out.
        """
        return loss

    def update(self, rate: float, most: float) -> float:
        """Clip the gradients, update the weights, forget the gradients; where they are no numbers, nothing is updated.

        Args:
            rate: the learning rate.
            most: the norm that gradients are clipped to.

        Returns:
            The norm before.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, most))
        if torch.isfinite(torch.tensor(norm)):
            self._optimizer.step(rate)
        return norm

    def agree(self, value: Item) -> Item:
        """Return what the first process says, in all of them."""
        return value

    def collect(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, in the order of the processes."""
        return [*items]

    def stored(self, tensor: torch.Tensor) -> Stored:
        """Return a trained weight, or a value kept for one, as it can be written; all processes must write it."""
        return tensor

    @contextmanager
    def whole_adapter(self) -> Iterator[None]:
        """Give the weights of an adapter whole in every process."""
        yield

"""What a step of the loop makes smaller, and what is measured on held-out examples.

The loop asks an objective three things: into which pieces a step is cut, what each piece adds to the step's loss, and
how good the model is. ``TokenMean`` is that of supervised training and of plain texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch

from danlu.data.batches import MicroBatch
from danlu.data.examples import Example
from danlu.training.forward import LossModel

Piece: TypeAlias = Sequence[Example] | MicroBatch
"""What is computed at once: packed, or as it is where the plain path is taken."""


class Objective(Protocol):
    """What is learned from the examples of a step."""

    def pieces(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> list[tuple[int, Any]]:
        """Cut a step into pieces that fit the budget, each with its number of computed tokens."""

    def loss(self, losses: LossModel, piece: Any, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds to the loss of its step, scalar, with its graph.

        Args:
            losses: the model.
            piece: one of ``pieces``.
            examples: all examples of the step: the sum over its pieces is the loss of the step, however it is cut.
        """

    def heldout_loss(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> float:
        """Return the loss of examples that are not learned, without a graph; lower is better."""


class TokenMean:
    """The mean loss over all learned tokens of a step, in nats a token."""

    def pieces(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> list[tuple[int, Piece]]:
        """Cut a step into pieces that fit the budget, each with its number of computed tokens."""
        return losses.step_losses(examples, token_budget)

    def loss(self, losses: LossModel, piece: Piece, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds to the mean over the learned tokens of its step."""
        return losses.piece_loss(piece) / sum(example.supervised for example in examples)

    def heldout_loss(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> float:
        """Return the mean over the learned tokens of held-out examples."""
        return losses.mean_loss(examples, token_budget)

"""What a step of the loop makes smaller, and what is measured on held-out examples.

The loop asks an objective three things: into which pieces a step is cut, what each piece adds to the step's loss, and
how good the model is. ``TokenMean`` is that of supervised training and of plain texts, ``AnswersAndTexts`` of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch

from danlu.data.batches import MicroBatch
from danlu.data.examples import Example
from danlu.training.forward import LossModel
from danlu.training.settings import TrainSettings

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
    """The mean loss over all learned tokens of a step, in nats a token; each counts what its example weighs."""

    def pieces(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> list[tuple[int, Piece]]:
        """Cut a step into pieces that fit the budget, each with its number of computed tokens."""
        return losses.step_losses(examples, token_budget)

    def loss(self, losses: LossModel, piece: Piece, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds to the mean over the learned tokens of its step.

        Where examples weigh differently, nothing is smoothed.
        """
        if all(example.weight == 1 for example in examples):
            return losses.piece_loss(piece) / sum(example.supervised for example in examples)
        total = sum(example.weight * example.supervised for example in examples)
        return _weighed(losses, piece, lambda example: example.weight / total)

    def heldout_loss(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> float:
        """Return the mean over the learned tokens of held-out examples."""
        return losses.mean_loss(examples, token_budget)


class AnswersAndTexts(TokenMean):
    """The mean over a step's answer tokens, and beside it, weighted, the mean over its text tokens.

    Two means and not one: texts have many times more learned tokens than answers, and would drown them. Held-out
    examples are answers: what training is for decides which state is the best. Nothing is smoothed.
    """

    def __init__(self, text_weight: float) -> None:
        self._text_weight = text_weight

    def loss(self, losses: LossModel, piece: Piece, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds to the loss of its step."""
        answers = sum(example.weight * example.supervised for example in examples if not example.text)
        texts = sum(example.supervised for example in examples if example.text)

        def counts(example: Example) -> float:
            return self._text_weight / texts if example.text else example.weight / answers

        return _weighed(losses, piece, counts)


def objective_of(settings: TrainSettings) -> Objective:
    """Return what a run of these settings makes smaller."""
    return AnswersAndTexts(settings.text_weight) if settings.texts_per_step else TokenMean()


def _weighed(losses: LossModel, piece: Piece, counts: Callable[[Example], float]) -> torch.Tensor:
    """Return the sum over the learned tokens of a piece, each counted as its example's tokens do."""
    tokens, owners = losses.token_losses(piece)
    members = piece.examples if isinstance(piece, MicroBatch) else piece
    return (tokens * torch.tensor([counts(example) for example in members])[owners]).sum()

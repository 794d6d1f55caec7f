"""Focal loss (Lin et al. 2017, arXiv 1708.02002): tokens that the model knows already count less."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from danlu.data.examples import Example
from danlu.training.forward import LossModel
from danlu.training.objectives import Piece

_GAMMA = 2.0


class Focal:
    """The mean over the learned tokens of a step of ``(1 - p)^2 * -log p``."""

    def pieces(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> list[tuple[int, Piece]]:
        """Cut a step as supervised training does."""
        return losses.step_losses(examples, token_budget)

    def loss(self, losses: LossModel, piece: Piece, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds; divided by the tokens of the whole step, so that the cut does not matter."""
        nats, _ = losses.token_losses(piece)
        weighted: torch.Tensor = (1 - torch.exp(-nats)) ** _GAMMA * nats
        return weighted.sum() / sum(example.supervised for example in examples)

    def heldout_loss(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> float:
        """Measure plain nats a token, so that runs with and without focal loss can be compared."""
        return losses.mean_loss(examples, token_budget)

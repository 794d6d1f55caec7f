"""Forgetting: how a small set of general questions fares, before and after.

The loss on the reference answers says whether the model still finds them likely; the KL divergence between the two
models at the same positions says how far it moved, whether or not the reference was its own choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from danlu.data.examples import Example
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.samples import sample_path
from danlu.training.forward import LossModel
from danlu.training.trained import TrainedModel

Before = Callable[[], AbstractContextManager[TrainedModel]]
"""Gives the base model of a tuned one for a while."""


@dataclass(frozen=True)
class GeneralResult:
    """The general set before and after.

    Attributes:
        n: number of questions.
        loss_before: mean loss of the answers under the base model, in nats a token.
        loss_after: the same under the tuned model.
        kl: mean KL divergence in nats a token, base against tuned.
    """

    n: int
    loss_before: float
    loss_after: float
    kl: float


def general_examples(chat_format: ChatFormat, path: Path | None = None, limit: int | None = None) -> list[Example]:
    """Encode the built-in general set (or a file of ``{"question", "answer"}`` lines)."""
    lines = (path or sample_path("general.jsonl")).read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()][:limit]
    plain = chat_format.with_system("")
    return [
        Example(sequence.ids, sequence.learn, index)
        for index, row in enumerate(rows)
        for sequence in plain.training_sequences(
            (Message("user", row["question"]), Message("assistant", row["answer"])), (False, True)
        )
    ]


def measure_general(losses: LossModel, before: Before, examples: Sequence[Example], token_budget: int) -> GeneralResult:
    """Compare the tuned model with its base on the learned positions of examples.

    Args:
        losses: the tuned model.
        before: gives the base model for a while.
        examples: the general set.
        token_budget: most tokens at once.
    """
    loss_before = loss_after = kl = 0.0
    count = 0
    losses.model.eval()
    for _, piece in losses.step_losses(examples, token_budget):
        with torch.no_grad():
            logits, targets = losses.learned_logits(piece)
            tuned = functional.log_softmax(logits, dim=-1)
            with before() as model:
                model.eval()
                other = losses if model is losses.model else LossModel(model)
                base = functional.log_softmax(other.learned_logits(piece)[0], dim=-1)
        loss_before += float(functional.nll_loss(base, targets, reduction="sum"))
        loss_after += float(functional.nll_loss(tuned, targets, reduction="sum"))
        kl += float((base.exp() * (base - tuned)).sum())
        count += len(targets)
    return GeneralResult(len(examples), loss_before / count, loss_after / count, kl / count)

"""Predicts a run's time and memory from pieces of it done for real and thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import psutil
import torch

from danlu.data.batches import mixed_members
from danlu.data.examples import Example
from danlu.data.table import lengths_of
from danlu.planning.plan import Prediction
from danlu.training.forward import LossModel
from danlu.training.memory import peak_rss
from danlu.training.objectives import Objective, Piece, TokenMean
from danlu.training.optimizers import Optimizers
from danlu.training.settings import TrainSettings
from danlu.training.trained import TrainedModel, base_of, trainable

# What is left between the parts: events, the order of the rows, clipping (own allowance).
_OVERHEAD: Final = 1.02
# So many trained values are updated to time the optimizer; the time of the others is in proportion.
_OPTIMIZED: Final = 4_000_000
# A checkpoint is three values a trained weight, written and synchronised (assumed: a plain disk).
_BYTES_A_SECOND: Final = 300e6
_TIMED: Final = 2
# Steps that are laid out to count their tokens: with 400 of them the sum of steps whose tokens vary by a half is known
# to some 2.5 per cent. To find the largest piece a few with the longest examples are looked at beside them.
_STEPS_LOOKED_AT: Final = 400
_LONGEST_LOOKED_AT: Final = 8
# Generating a token costs more than a pass over one: two questions are answered at once, and transformers' loop comes
# on top (1.0 times with one question, 1.1 to 1.5 with two; SmolLM2-135M on two cores).
_GENERATING: Final = 1.3


@dataclass(frozen=True)
class _Cost:
    """What a piece costs: a part that every piece has, however short, and a part for each token; in seconds."""

    piece: float
    token: float

    def of(self, tokens: int) -> float:
        return self.piece + self.token * tokens


@dataclass(frozen=True)
class _Planned:
    """A piece of the run: its computed tokens, and the examples of the step that it belongs to."""

    tokens: int
    piece: Piece
    step: Sequence[Example]


def predict(
    model: TrainedModel,
    examples: Sequence[Example],
    heldout: Sequence[Example],
    settings: TrainSettings,
    objective: Objective | None = None,
    *,
    answered_tokens: int = 0,
) -> Prediction:
    """Run the largest and a small piece of the run forward and backward, and scale.

    A pass over the shortest example warms up. The largest piece takes the memory that the run will need; it and the
    smallest tell what a piece costs by itself and what a token costs. Gradients are thrown away, so the run that
    follows is not changed. Measurements, answers, optimizer steps and checkpoints are counted.

    Args:
        model: the model, ready to be trained.
        examples: the examples that will be learned.
        heldout: the examples that will be measured on.
        settings: the decided settings.
        objective: what is learned; None is the mean loss over the learned tokens.
        answered_tokens: tokens that are generated at each measurement, one after the other.
    """
    objective = objective or TokenMean()
    losses = LossModel(model, share_prefix=settings.share_prefix)
    members = mixed_members(examples, settings.batch_size, settings.texts_per_step, settings.seed, settings.steps)

    def pieces_of(numbers: Iterable[int]) -> list[_Planned]:
        return [
            _Planned(tokens, piece, step)
            for step in ([examples[i] for i in members[number]] for number in numbers)
            for tokens, piece in objective.pieces(losses, step, settings.token_budget)
        ]

    pieces = pieces_of(evenly(settings.steps, _STEPS_LOOKED_AT))
    model.train()
    others = longest_steps(members, examples, _LONGEST_LOOKED_AT) if settings.steps > _STEPS_LOOKED_AT else []
    cost = _learning(losses, objective, [*pieces, *pieces_of(others)])
    total = sum(planned.tokens for planned in pieces)
    learning = sum(cost.of(planned.tokens) for planned in pieces)
    looked_at = min(settings.steps, _STEPS_LOOKED_AT)
    seconds = settings.steps * (learning / looked_at + _update_seconds(model, settings))
    rounds = -(-settings.steps // settings.eval_every)  # the last step is always measured
    seconds += (rounds + 1) * (_heldout_seconds(losses, heldout, settings) + _answer_seconds(model, answered_tokens))
    trained = sum(parameter.numel() * parameter.element_size() for parameter in trainable(model).values())
    saved = 3 * (settings.steps // settings.checkpoint_every + 1) + (rounds if heldout else 0)
    seconds += saved * trained / _BYTES_A_SECOND
    torch.manual_seed(settings.seed)
    return Prediction(
        predicted_seconds=seconds * _OVERHEAD,
        # The optimizer keeps two values for each trained one, and the gradient is a third.
        predicted_peak_rss_bytes=peak_rss(psutil.Process()) + 3 * trained,
        measured_tokens_per_second=total / learning,
    )


def evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the numbers from 0 to below ``count``, at even distances; all where they are few."""
    few = min(count, most)
    return [number * count // few for number in range(few)]


def longest_steps(members: Sequence[Sequence[int]], examples: Sequence[Example], most: int) -> list[int]:
    """Return the steps with the longest examples: with what fills a piece, they take the most memory.

    Args:
        members: the examples of each step, by number.
        examples: the examples.
        most: how many steps at most.
    """
    lengths = lengths_of(examples)
    longest = np.array([lengths[list(step)].max() for step in members])
    few: list[int] = np.argsort(-longest, kind="stable")[:most].tolist()
    return few


def _learning(losses: LossModel, objective: Objective, pieces: Sequence[_Planned]) -> _Cost:
    """Time the smallest and the largest piece forward and backward."""
    ordered = sorted(pieces, key=lambda piece: piece.tokens)
    small, large = ordered[0], ordered[-1]
    _learn(losses, objective, small)  # warms up
    _learn(losses, objective, large)
    slow = min(_learn(losses, objective, large) for _ in range(_TIMED))
    if large.tokens < 2 * small.tokens:  # too like each other for two unknowns
        return _Cost(piece=0.0, token=slow / large.tokens)
    quick = min(_learn(losses, objective, small) for _ in range(_TIMED))
    token = max(slow - quick, 0.0) / (large.tokens - small.tokens)
    return _Cost(piece=max(quick - token * small.tokens, 0.0), token=token or slow / large.tokens)


def _learn(losses: LossModel, objective: Objective, planned: _Planned) -> float:
    start = time.perf_counter()
    objective.loss(losses, planned.piece, planned.step).backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    losses.model.zero_grad(set_to_none=True)
    return seconds


def _heldout_seconds(losses: LossModel, heldout: Sequence[Example], settings: TrainSettings) -> float:
    """Time a piece of the held-out examples without a graph, and scale to all."""
    pieces = losses.step_losses(heldout, settings.token_budget) if heldout else []
    if not pieces:
        return 0.0
    tokens, piece = pieces[len(pieces) // 2]
    losses.model.eval()
    with torch.no_grad():
        start = time.perf_counter()
        losses.piece_loss(piece)
        seconds = time.perf_counter() - start
    losses.model.train()
    return seconds * sum(tokens for tokens, _ in pieces) / tokens


def _answer_seconds(model: TrainedModel, tokens: int) -> float:
    """Time a pass over a single token, of which each generated token needs one."""
    if tokens == 0:
        return 0.0
    base, one = base_of(model), torch.zeros(1, 1, dtype=torch.int64)
    model.eval()
    with torch.no_grad():
        base(input_ids=one, use_cache=False)
        start = time.perf_counter()
        base(input_ids=one, use_cache=False)
        seconds = time.perf_counter() - start
    model.train()
    return tokens * seconds * _GENERATING


def _update_seconds(model: TrainedModel, settings: TrainSettings) -> float:
    """Time an optimizer step on copies of some of the trained weights, and scale to all."""
    weights = trainable(model)
    copies: dict[str, torch.nn.Parameter] = {}
    counted = 0
    for name, value in weights.items():
        if not copies or counted < _OPTIMIZED:
            copies[name] = torch.nn.Parameter(value.detach().clone())
            counted += value.numel()
    optimizer = Optimizers(copies, settings)
    seconds = 0.0
    for _ in range(2):  # the first one makes the optimizer's values
        for copy in copies.values():
            copy.grad = torch.zeros_like(copy)
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(list(copies.values()), settings.max_grad_norm)
        optimizer.step(0.0)
        seconds = time.perf_counter() - start
    return seconds * sum(value.numel() for value in weights.values()) / counted

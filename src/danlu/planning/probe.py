"""Tries several learning rates on the run's own rows and takes the best: ``train.learning_rate: probe``.

Short branches and not one rising sweep (Smith 2017, arXiv 1506.01186): an adapter begins at zero and moves slowly at
first whatever the rate, so that along a sweep of a few dozen steps the time and the rate cannot be told apart.
Everything is put back afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from danlu.data.batches import mixed_members
from danlu.data.examples import Example
from danlu.planning.probe_table import RateProbe, Trial
from danlu.training.forward import LossModel
from danlu.training.objectives import Objective, TokenMean
from danlu.training.optimizers import Optimizers
from danlu.training.settings import TrainSettings
from danlu.training.trained import TrainedModel, trainable

# About half an order of magnitude apart, around what the rule says; five branches of twelve steps are 60 steps.
_FACTORS: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
_STEPS: Final = 12
_WARMUP: Final = 3
_JUDGED: Final = 16
# A rate counts as good as the best when it gains nearly as much; the lower of the two is the safer (own rule).
_AS_GOOD: Final = 0.02
# Beyond a rate, the rule's or a higher one, that gains less than half of the most, nothing is left to find (own rule).
_WORSE: Final = 0.5
_HIGHEST: Final = 1.0


def probe_rate(
    model: TrainedModel,
    examples: Sequence[Example],
    heldout: Sequence[Example],
    settings: TrainSettings,
    objective: Objective | None = None,
) -> RateProbe:
    """Train a dozen steps at each of several rates, from the same beginning, and compare.

    The lowest loss wins; of rates that gain at least 98 % as much, the lowest. Rates above one that gains less
    than half of the most are not tried. Model, gradients and random numbers are afterwards as they were.

    Args:
        model: the model, ready to be trained.
        examples: the examples that will be learned.
        heldout: the examples kept aside; the first 16 judge. Without any, rows of the trials do.
        settings: the decided settings, with the rate that the rule gives.
        objective: what is learned; the mean over tokens when None.
    """
    objective = objective or TokenMean()
    random = torch.get_rng_state()
    was_training = model.training
    weights = trainable(model)
    kept = {name: value.detach().clone() for name, value in weights.items()}
    losses = LossModel(
        model,
        share_prefix=settings.share_prefix,
        smoothing=settings.label_smoothing_factor,
        noise=settings.neftune_noise_alpha,
    )
    few = min(_STEPS, settings.steps)
    members = mixed_members(examples, settings.batch_size, settings.texts_per_step, settings.seed, few)
    steps = [rows for rows in ([examples[i] for i in step] for step in members) if any(row.supervised for row in rows)]
    seen = list(dict.fromkeys(index for step in members for index in step))
    judged = [row for row in (heldout or [examples[index] for index in seen]) if row.supervised][:_JUDGED]
    model.train()
    try:
        before = objective.heldout_loss(losses, judged, settings.token_budget)
        trials: list[Trial] = []
        for factor in _FACTORS:
            rate = min(float(f"{settings.learning_rate * factor:.1e}"), _HIGHEST)
            finite = _train(losses, objective, steps, settings, rate)
            after = objective.heldout_loss(losses, judged, settings.token_budget) if finite else math.inf
            _put_back(weights, kept)
            trials.append(Trial(learning_rate=rate, loss=after if math.isfinite(after) else None))
            gain, best = (
                before - after,
                max((before - item.loss for item in trials if item.loss is not None), default=0.0),
            )
            if factor >= 1 and not gain > _WORSE * best:
                break
    finally:
        _put_back(weights, kept)
        model.train(was_training)
        torch.set_rng_state(random)
    return RateProbe(
        steps=len(steps),
        judged=len(judged),
        heldout=bool(heldout),
        loss_before=before,
        trials=tuple(trials),
        chosen=choose(before, trials, settings.learning_rate),
    )


def choose(before: float, trials: Sequence[Trial], rule: float) -> float:
    """Return the lowest rate that gained at least 98 % of the most; the rule's where nothing gained.

    Args:
        before: loss before any step.
        trials: what was tried.
        rule: the rate that the written rule gives.
    """
    gains = [(trial.learning_rate, before - trial.loss) for trial in trials if trial.loss is not None]
    most = max((gain for _, gain in gains), default=0.0)
    if most <= 0:
        return rule
    return min(rate for rate, gain in gains if gain >= (1 - _AS_GOOD) * most)


def _train(
    losses: LossModel, objective: Objective, steps: Sequence[list[Example]], settings: TrainSettings, rate: float
) -> bool:
    """Train at a rate, which rises over the first steps and then stays; return whether all stayed numbers."""
    weights = trainable(losses.model)
    optimizer = Optimizers(weights, settings)
    for number, rows in enumerate(steps):
        torch.manual_seed(settings.seed + number)
        total = 0.0
        for _, piece in objective.pieces(losses, rows, settings.token_budget):
            loss = objective.loss(losses, piece, rows)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(list(weights.values()), settings.max_grad_norm))
        if not (math.isfinite(total) and math.isfinite(norm)):
            return False
        optimizer.step(rate * min(1.0, (number + 1) / (_WARMUP + 1)))
    return True


def _put_back(weights: dict[str, torch.nn.Parameter], kept: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(kept[name])
            value.grad = None

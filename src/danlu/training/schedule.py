"""The learning rate over a run, as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Final

from danlu.training.settings import TrainSettings

# Share of the steps in which a rate that was stable falls (arXiv 2405.18392 finds 20 % as good as a cosine).
_DECAY_SHARE: Final = 0.2


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule down to zero."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.scheduler == "constant":
        return peak
    done = (step - warmup) / max(1, settings.steps - warmup)
    if settings.scheduler == "warmup_stable_decay":
        decay = max(1, round(_DECAY_SHARE * settings.steps))
        return peak * min(1.0, (settings.steps - step) / (decay + 1))
    if settings.scheduler == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done)

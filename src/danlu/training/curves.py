"""What the curves of a run say, in sentences with advice. Pure functions from events to findings.

Each rule stands with its threshold and where that comes from; ``docs/training.md`` has them as a table. Divergence
(``loop``) and forgetting (``evaluation.result``) are judged elsewhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from danlu.events import Eval, Event, Step
from danlu.i18n import Language, t

# Generalisation loss: how far the held-out loss lies above its lowest value. Prechelt 1998, "Early stopping - but
# when?", stops at 5 % (GL5).
OVERFITTING_RISE: Final = 0.05
# Own rule: a training loss, compared over the same rows or over a third of the steps, that fell by less than this.
NOTHING_FALL: Final = 0.03
# Own rule: a held-out loss that fell by less than this is that of the base model.
HELDOUT_FALL: Final = 0.01
# OLMo 2's spike score (arXiv 2501.00656): seven standard deviations from a rolling mean. Theirs is over 1,000 values;
# 20 are the fewest with which a short run has any.
SPIKE_DEVIATIONS: Final = 7.0
SPIKE_WINDOW: Final = 1000
SPIKE_FEWEST: Final = 20
# Own rule: held-out loss that fell by more than this over the last third of the run would go on falling. The rate of
# most runs falls to zero, so that the last steps alone always look flat.
FALLING_HELDOUT: Final = 0.02
# And by at least so many nats: from 0.15 to 0.13 is a seventh, but what is told rightly is told rightly already.
FALLING_NATS: Final = 0.05
# Own rule, where nothing is kept aside: the last pass lies this much below that at two thirds, and is not low yet.
FALLING_TRAIN: Final = 0.1
FALLING_LEAST: Final = 0.5
# Fewer steps than this say nothing.
FEWEST_STEPS: Final = 6


class Finding(BaseModel):
    """Something that the curves of a run say.

    Attributes:
        code: catalogue key of the sentence.
        params: values of its placeholders.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    params: dict[str, int | float] = {}

    def text(self, lang: Language | None = None) -> str:
        """Return it as a sentence with advice."""
        return t(self.code, lang, **self.params)


def findings(events: Iterable[Event]) -> tuple[Finding, ...]:
    """Judge the curves of a run.

    Args:
        events: its events; of a step that was done again after an interruption the last one counts.
    """
    steps: dict[int, Step] = {}
    heldout: dict[int, float] = {}
    for event in events:
        if isinstance(event, Step):
            steps[event.step] = event
        elif isinstance(event, Eval):
            heldout[event.step] = event.heldout_loss
    train = [steps[number] for number in sorted(steps)]
    evals = sorted(heldout.items())
    if len(train) < FEWEST_STEPS:
        return ()
    found = [_overfitting(train, evals) or _nothing_learned(train, evals) or _still_falling(train, evals)]
    found.append(_spikes([step.loss for step in train]))
    return tuple(finding for finding in found if finding is not None)


def _overfitting(train: Sequence[Step], evals: Sequence[tuple[int, float]]) -> Finding | None:
    """The held-out loss has risen from its lowest value while the training loss fell."""
    if len(evals) < 3:
        return None
    step, best = min(evals, key=lambda item: item[1])
    last = evals[-1][1]
    earlier = [item.loss for item in train if item.step <= max(step, len(train) // 3)]
    later = [item.loss for item in train if item.step > max(step, len(train) // 3)]
    if last / best - 1 <= OVERFITTING_RISE or not later or statistics.fmean(later) >= statistics.fmean(earlier):
        return None
    code = "training.curve_overfitting" if step else "training.curve_overfitting_at_once"
    return Finding(code=code, params={"step": step, "rise": last / best - 1})


def _nothing_learned(train: Sequence[Step], evals: Sequence[tuple[int, float]]) -> Finding | None:
    """The training loss hardly fell, or what is kept aside is no better than before."""
    first, last = _ends(train)
    fall = 1 - last / first
    gained = 1 - min(loss for _, loss in evals[1:]) / evals[0][1] if len(evals) > 1 else None
    if fall < NOTHING_FALL and (gained is None or gained < NOTHING_FALL):
        return Finding(code="training.curve_nothing_learned", params={"fall": max(fall, 0.0)})
    if gained is not None and gained < HELDOUT_FALL:
        return Finding(code="training.curve_heldout_not_better", params={"fall": fall})
    return None


def _still_falling(train: Sequence[Step], evals: Sequence[tuple[int, float]]) -> Finding | None:
    """The run ended while it still got better."""
    if len(evals) > 1:
        last_step, last = evals[-1]
        _, earlier = min(evals, key=lambda item: abs(item[0] - last_step * 2 / 3))
        fall = 1 - last / earlier
        if last <= min(loss for _, loss in evals) and fall > FALLING_HELDOUT and earlier - last > FALLING_NATS:
            return Finding(code="training.curve_still_falling", params={"fall": fall})
        return None
    passes = _passes(train)
    if len(passes) < 2:
        return None
    fall = 1 - passes[-1] / passes[round((len(passes) - 1) * 2 / 3)]
    if fall > FALLING_TRAIN and passes[-1] > FALLING_LEAST:
        return Finding(code="training.curve_rows_still_falling", params={"fall": fall, "loss": passes[-1]})
    return None


def _spikes(losses: Sequence[float]) -> Finding | None:
    """Single losses lay far above those before them."""
    spikes = []
    for at in range(SPIKE_FEWEST, len(losses)):
        window = losses[max(0, at - SPIKE_WINDOW) : at]
        if losses[at] - statistics.fmean(window) > SPIKE_DEVIATIONS * statistics.pstdev(window) > 0:
            spikes.append(at + 1)
    if not spikes:
        return None
    return Finding(code="training.curve_spikes", params={"count": len(spikes), "step": spikes[0]})


def _passes(train: Sequence[Step]) -> list[float]:
    """Return the mean loss of each whole pass over the rows: the same rows each time, so that they can be compared."""
    per_pass = next((at for at, step in enumerate(train, start=1) if step.epoch >= 1), None)
    if per_pass is None:
        return []
    starts = range(0, len(train) - per_pass + 1, per_pass)
    return [statistics.fmean(step.loss for step in train[at : at + per_pass]) for at in starts]


def _ends(train: Sequence[Step]) -> tuple[float, float]:
    """Return the mean loss at the beginning and at the end: of whole passes, or else of a third of the steps each."""
    passes = _passes(train)
    if len(passes) > 1:
        return passes[0], passes[-1]
    third = max(1, len(train) // 3)
    return statistics.fmean(step.loss for step in train[:third]), statistics.fmean(step.loss for step in train[-third:])

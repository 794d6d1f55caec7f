"""What curves say: each rule on curves made for it, and on tiny runs that really go that way."""

from __future__ import annotations

import math
import random

import pytest

from danlu.data.examples import Example
from danlu.events import Eval, Event, Step
from danlu.i18n import LANGUAGES
from danlu.training.curves import findings
from tests.training.fitting import examples, run, settings


def curve(train: list[float], heldout: dict[int, float] | None = None, per_pass: int = 10) -> list[Event]:
    """Return the events of a run with these losses."""
    events: list[Event] = [
        Step(step=at, epoch=at / per_pass, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens=9, supervised_tokens=5,
             seconds=0.1)
        for at, loss in enumerate(train, start=1)
    ]  # fmt: skip
    return events + [Eval(step=at, heldout_loss=loss, best=False) for at, loss in (heldout or {}).items()]


def codes(events: list[Event]) -> list[str]:
    found = findings(events)
    for finding in found:
        for language in LANGUAGES:
            assert finding.text(language)
    return [finding.code.removeprefix("training.curve_") for finding in found]


def falling(start: float, end: float, count: int = 30) -> list[float]:
    """An exponential from one value to another."""
    return [start * (end / start) ** (at / (count - 1)) for at in range(count)]


@pytest.mark.parametrize(
    ("heldout", "says"),
    [
        ({0: 3.0, 10: 2.0, 20: 2.05, 30: 2.2}, ["overfitting"]),
        ({0: 3.0, 10: 2.0, 20: 2.05, 30: 2.09}, []),  # under 5 %
        ({0: 3.0, 10: 3.1, 20: 3.2, 30: 3.4}, ["overfitting_at_once"]),
        ({0: 3.0, 10: 3.0, 20: 3.01, 30: 3.02}, ["heldout_not_better"]),
        ({0: 3.0, 10: 2.6, 20: 2.3, 30: 2.1}, ["still_falling"]),
        ({0: 3.0, 10: 0.3, 20: 0.153, 30: 0.132}, []),
        ({0: 3.0, 10: 2.2, 20: 2.11, 30: 2.1}, []),
    ],
)
def test_held_out_curves_are_judged_by_the_written_rules(heldout, says):
    assert codes(curve(falling(3.0, 1.0), heldout)) == says


def test_a_held_out_loss_that_rises_with_the_training_loss_is_not_called_overfitting():
    assert "overfitting" not in codes(curve(falling(1.0, 3.0), {0: 1.0, 10: 0.9, 20: 1.2, 30: 1.5}))


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ([2.0] * 30, ["nothing_learned"]),
        (falling(3.0, 2.0), ["rows_still_falling"]),
        (falling(3.0, 0.1), []),
        ([*falling(3.0, 1.0, 20), *falling(1.0, 0.98, 10)], ["rows_still_falling"]),
        ([*falling(3.0, 1.0, 10), *[0.9] * 20], []),
    ],
)
def test_without_held_out_rows_whole_passes_are_compared(train, says):
    assert codes(curve(train)) == says


def test_a_leap_of_the_loss_is_said_with_its_step():
    rng = random.Random(0)
    train = [2.0 + rng.gauss(0, 0.05) for _ in range(60)]
    assert "spikes" not in codes(curve(train))
    train[40] = 3.0
    (spike,) = [finding for finding in findings(curve(train)) if finding.code.endswith("spikes")]
    assert spike.params == {"count": 1, "step": 41}


def test_a_handful_of_steps_says_nothing():
    assert codes(curve([2.0] * 5, {0: 1.0, 5: 9.0})) == []


def test_a_step_done_again_after_an_interruption_counts_once():
    events = curve([2.0] * 30)
    assert findings([*events[:20], *events[10:]]) == findings(events)


def really(tmp_path, *, learned: list[Example], heldout: list[Example], **changes: object) -> list[str]:
    events: list[Event] = []
    run(tmp_path, settings(**changes), emit=events.append, learned=learned, heldout=heldout)
    assert all(math.isfinite(event.loss) for event in events if isinstance(event, Step))
    return codes(events)


def alphabet(start: int, row: int) -> Example:
    """A sequence with a rule: each token is one more than that before it."""
    return Example(tuple(3 + (start + at) % 20 for at in range(12)), (False, *[True] * 11), row)


def test_a_real_run_over_random_rows_overfits(tmp_path):
    rows = {"learned": examples(), "heldout": examples(4, seed=9)}
    said = really(tmp_path, **rows, method="full", steps=60, learning_rate=3e-3, eval_every=10, scheduler="constant")
    assert said[0] in {"overfitting", "overfitting_at_once"}


def test_a_real_run_at_far_too_low_a_rate_learns_nothing(tmp_path):
    said = really(tmp_path, learned=examples(), heldout=examples(4, seed=9), steps=20, learning_rate=1e-7)
    assert said == ["nothing_learned"]


def test_a_real_run_with_a_rule_to_learn_that_ends_too_early_still_falls(tmp_path):
    rows = [alphabet(start, start) for start in range(16)]
    said = really(
        tmp_path, learned=rows, heldout=[alphabet(start, start) for start in range(16, 20)], steps=24,
        learning_rate=5e-3, eval_every=4, scheduler="constant",
    )  # fmt: skip
    assert said == ["still_falling"]


def test_a_real_run_over_the_rows_alone_that_ends_too_early_says_so(tmp_path):
    said = really(tmp_path, learned=examples(8), heldout=[], steps=20, learning_rate=1e-2, scheduler="constant")
    assert said == ["rows_still_falling"]

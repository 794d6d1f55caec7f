"""The probe of learning rates: it finds the best of several, and leaves nothing behind but the rate."""

from __future__ import annotations

import math

import pytest
import torch

from danlu.i18n import LANGUAGES
from danlu.jobs import pipeline, preparing
from danlu.planning.probe import choose, probe_rate
from danlu.planning.probe_table import Trial
from danlu.settings import Home
from danlu.training.trained import attach, trainable
from tests.jobs.homes import recipe, write_material
from tests.tiny import tiny_model
from tests.training.fitting import assert_bit_equal, examples, settings, weights


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ((2.9, 2.5, 2.0, 1.8, 2.4), 3e-3),
        ((2.9, 2.5, 2.01, 2.0, 2.4), 1e-3),  # as good as the best: the lower one
        ((2.9, 2.5, 2.2, None), 1e-3),
        ((3.0, 3.1, 3.2), 1e-3),  # nothing gained: the rule's
    ],
)
def test_the_lowest_rate_that_gains_nearly_the_most_is_taken(losses, chosen):
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    trials = [Trial(learning_rate=rate, loss=loss) for rate, loss in zip(rates, losses, strict=False)]
    assert choose(3.0, trials, 1e-3) == chosen


@pytest.mark.parametrize("method", ["lora", "full"])
def test_nothing_is_left_behind(method):
    chosen = settings(method=method)
    model = attach(tiny_model(), chosen)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    training = model.training
    probe_rate(model, examples(), examples(4, seed=9), chosen)
    assert torch.equal(torch.rand(3), expected)
    assert model.training == training
    assert_bit_equal(before, dict(model.named_parameters()))
    assert all(value.grad is None for value in trainable(model).values())


def test_the_trials_are_those_of_a_plain_run():
    """A rate of the table, tried alone, gives the same loss: trials do not touch each other."""
    model = attach(tiny_model(), settings())
    whole = probe_rate(model, examples(), examples(4, seed=9), settings())
    again = probe_rate(attach(tiny_model(), settings()), examples(), examples(4, seed=9), settings())
    assert whole == again
    assert [trial.learning_rate for trial in whole.trials[:3]] == [5e-4, 1.5e-3, 5e-3]
    assert whole.steps == 8  # no more than the run itself has
    assert (whole.heldout, whole.judged) == (True, 4)


@pytest.mark.parametrize("start", [1e-5, 1e-3])
def test_a_rule_that_is_far_too_low_is_corrected_upwards(start):
    chosen = settings(learning_rate=start, steps=12)
    probe = probe_rate(attach(tiny_model(), chosen), examples(), [], chosen)
    assert probe.chosen == pytest.approx(10 * start)
    assert not probe.heldout


def test_rates_that_make_it_worse_are_not_chosen():
    chosen = settings(learning_rate=0.3, steps=12)
    probe = probe_rate(attach(tiny_model(), chosen), examples(), [], chosen)
    assert probe.chosen < 0.3
    assert probe.trials[-1].loss is None or probe.trials[-1].loss > min(item.loss for item in probe.trials)
    assert all(trial.loss is None or math.isfinite(trial.loss) for trial in probe.trials)


def test_a_run_after_a_probe_is_bit_for_bit_a_run_with_that_rate(tmp_path):
    material = write_material(tmp_path / "material")
    home = Home(tmp_path / "home").make()
    runs = []
    rate: object = "probe"
    for _ in range(2):
        wish = recipe(*material, f"train.learning_rate={rate}")
        prepared = preparing.prepare(home, wish, lambda _: None, predict_cost=False)
        report = pipeline.train(prepared, lambda _: None, lambda: False)
        runs.append((prepared.run.path, report.train_loss, prepared.plan))
        rate = prepared.plan.settings.learning_rate
    (probed, loss, plan), (given, same, plain) = runs
    assert loss == same
    assert_bit_equal(weights(probed), weights(given))
    assert plan.probe is not None
    assert plan.probe.chosen == plan.settings.learning_rate
    assert plain.probe is None
    (decision,) = [item for item in plan.decisions if item.field == "train.learning_rate"]
    assert (decision.by, decision.value) == ("danlu", plan.probe.chosen)
    for language in LANGUAGES:
        assert f"{plan.probe.chosen:.1e}" in decision.because(language)

"""The rules for preference objectives."""

from __future__ import annotations

import pytest

from danlu.data.encode import TokenCounts
from danlu.planning import preference_rules as rules
from danlu.planning.facts import DataFacts, JudgedFacts


def facts(train: int, good: int = 1, bad: int = 1) -> DataFacts:
    tokens = TokenCounts(train, 100, 50, 10, 10, 10)
    return DataFacts(rows=train, train=train, holdout=0, tokens=tokens, judged=JudgedFacts(good, bad, 20))


@pytest.mark.parametrize(
    ("objective", "steps", "method", "rate"),
    [
        ("dpo", 1000, "lora", 1e-5),
        ("dpo", 500, "qlora", 2e-5),
        ("kto", 10, "lora", 5e-5),
        ("orpo", 5000, "lora", 8e-5),
        ("orpo", 10, "lora", 1.6e-4),
        ("dpo", 1000, "full", 1e-6),
        ("orpo", 1000, "freeze", 8e-6),
    ],
)
def test_the_rate_is_far_lower_than_for_answers_and_raised_for_short_runs(objective, steps, method, rate):
    assert rules.learning_rate(objective, steps, method).value == pytest.approx(rate)


@pytest.mark.parametrize(
    ("objective", "train", "batch", "passes"),
    [("dpo", 5, 5, 3), ("dpo", 500, 8, 3), ("dpo", 3000, 16, 2), ("orpo", 3000, 16, 3), ("kto", 100, 16, 3),
     ("kto", 20_000, 16, 1)],
)  # fmt: skip
def test_steps_and_passes_follow_the_number_of_judgements(objective, train, batch, passes):
    assert rules.batch_size(objective, facts(train)).value == batch
    assert rules.epochs(objective, facts(train)).value == passes


@pytest.mark.parametrize(("good", "bad"), [(10, 10), (40, 30), (90, 10), (10, 90), (31, 30), (30, 31), (5, 0)])
def test_both_kinds_of_labels_weigh_about_as_much(good, bad):
    wanted, unwanted = (choice.value for choice in rules.weights(JudgedFacts(good, bad, 20)))
    assert min(wanted, unwanted) == 1
    if bad:
        assert 0.999 <= wanted * good / (unwanted * bad) <= 4 / 3 + 1e-3


def test_beta_is_the_papers():
    assert {rules.beta(objective).value for objective in ("dpo", "kto", "orpo")} == {0.1}

"""The written rules, each as a table of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from danlu.data.conversations import Conversation
from danlu.data.encode import TokenCounts
from danlu.hardware import Machine
from danlu.i18n import catalogue
from danlu.models.architecture import Architecture
from danlu.models.library import ModelFolder
from danlu.models.messages import Message
from danlu.planning import rules
from danlu.planning.facts import DataFacts
from danlu.recipe import LoraSection

GIGA = 10**9


def data(train=100, *, holdout=10, supervised=5_000, longest=200) -> DataFacts:
    counts = TokenCounts(train, train * 50, supervised, 50, 90, longest)
    return DataFacts(rows=train + holdout, train=train, holdout=holdout, tokens=counts)


def model(family="llama", hidden=576, context=8192) -> Architecture:
    """Of the proportions of SmolLM2-135M."""
    return Architecture(family, hidden, hidden * 8 // 3, 30, 9, 3, hidden // 9, 49_152, True, max_context=context)


def base(weights=GIGA // 4) -> ModelFolder:
    return ModelFolder("m", Path("m"), "folder:m", None, model(), weights)


def machine(fp32=50.0, bf16=20.0, available=16 * GIGA) -> Machine:
    return Machine("cpu", 2, available, available, None, {"float32": fp32, "bfloat16": bf16})


@pytest.mark.parametrize(("rows", "share"), [(1, 0.0), (20, 0.0), (21, 0.1), (10_000, 0.1)])
def test_a_tenth_is_kept_aside_but_nothing_of_very_few_rows(rows, share):
    assert rules.holdout_share(rows).value == share


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 3), (20, 4), (21, 8), (1999, 8), (2000, 16), (10**6, 16)])
def test_small_data_gets_small_batches(rows, size):
    assert rules.batch_size(data(rows)).value == size


@pytest.mark.parametrize(
    ("rows", "passes"),
    [(1, 10), (20, 10), (21, 8), (50, 8), (51, 6), (300, 6), (301, 4), (1000, 4), (1001, 3), (19_999, 3), (20_000, 1)],
)
def test_few_rows_get_many_passes(rows, passes):
    assert rules.epochs(data(rows)).value == passes


@pytest.mark.parametrize(
    ("family", "hidden", "batch", "steps", "rate"),
    [
        ("llama", 2000, 128, 1000, 5e-4),  # Tinker's formula itself
        ("llama", 2000, 32, 1000, 2.5e-4),  # half by the square root of a quarter
        ("llama", 576, 8, 5000, 3.3e-4),
        ("llama", 576, 8, 84, 2e-3),  # raised for a short run, but at most 1.5 times the value at batch 128
        ("qwen2", 1536, 8, 84, 7.7e-4),
        ("qwen2", 1536, 16, 2000, 1.8e-4),
        ("llama", 576, 2, 100, 1.7e-3),
        ("llama", 576, 2, 400, 4.1e-4),
        ("llama", 4096, 16, 10_000, 1e-4),
    ],
)
def test_the_learning_rate_follows_the_formula_and_its_limits(family, hidden, batch, steps, rate):
    assert rules.learning_rate(model(family, hidden), batch, steps).value == pytest.approx(rate, rel=0.03)


def test_the_learning_rate_is_never_above_its_cap_and_falls_with_the_length_of_the_run():
    rates = [rules.learning_rate(model(), 8, steps).value for steps in (1, 10, 100, 300, 1000, 100_000)]
    assert rates == sorted(rates, reverse=True)
    assert max(rates) <= 1.5 * 5e-4 * (2000 / 576) ** 0.781 * 1.06
    assert rates[-1] == rates[-2]


@pytest.mark.parametrize(
    ("hidden", "supervised", "r"),
    [
        (576, 1, 16),
        (576, 4_884_480, 16),  # exactly SmolLM2-135M's adapter of rank 16
        (576, 4_884_481, 32),
        (576, 10_000_000, 64),
        (576, 10**9, 128),
        (64, 600_000, 32),
    ],
)
def test_the_rank_grows_with_what_is_to_be_learned(hidden, supervised, r):
    assert rules.rank(model(hidden=hidden), data(supervised=supervised)).value == r


@pytest.mark.parametrize("r", [1, 16, 128])
def test_alpha_stays_so_that_the_rate_need_not_change(r):
    assert rules.alpha(r, LoraSection()).value == 32.0


@pytest.mark.parametrize(
    ("changes", "r", "scale"),
    [
        ({"use_rslora": True}, 16, 2.0),
        ({"init_lora_weights": "pissa"}, 64, 1.0),
        ({"init_lora_weights": "pissa", "use_rslora": True}, 64, 1.0),
    ],
)
def test_alpha_follows_the_kind_of_adapter(changes, r, scale):
    lora = LoraSection(**changes)
    assert rules.alpha(r, lora).value / (r**0.5 if lora.use_rslora else r) == scale


def test_the_longest_example_is_the_models_limit():
    assert rules.max_length(model(context=2048), data()).value == 2048


@pytest.mark.parametrize(("fp32", "bf16", "dtype"), [(50, 20, "float32"), (50, 200, "bfloat16")])
def test_the_faster_format_is_taken(fp32, bf16, dtype):
    choice = rules.dtype(machine(fp32, bf16))
    assert choice.value == dtype
    assert choice.params == {"fp32": fp32, "bf16": bf16}


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (5, 1), (6, 1), (7, 2), (84, 14), (600, 100), (10_000, 100)])
def test_progress_is_measured_six_times_and_every_hundred_steps(steps, every):
    assert rules.eval_every(steps, data(holdout=10)).value == every


def test_progress_is_looked_at_three_times_where_there_is_nothing_to_measure_on():
    choice = rules.eval_every(25, data(10, holdout=0))
    assert (choice.value, choice.params) == (9, {"rounds": 3})


@pytest.mark.parametrize(
    ("answers", "policy", "params"),
    [
        (["yes", "no"], "off", {}),
        (["yes", "<think>hm</think>no"], "auto", {"rows": 1}),
    ],
)
def test_thinking_is_taught_by_answers_that_think(answers, policy, params):
    def learned(answer: str) -> Conversation:
        return Conversation((Message("user", "?"), Message("assistant", answer)), (False, True), 1, 1)

    choice = rules.thinking(sum(learned(answer).reasoned for answer in answers))
    assert (choice.value, choice.params) == (policy, params)
    assert catalogue("zh")[choice.reason]


def test_a_thought_that_is_not_learned_teaches_nothing():
    messages = (Message("user", "?"), Message("assistant", "<think>hm</think>no"))
    assert rules.thinking(int(Conversation(messages, (False, False), 1, 1).reasoned)).value == "off"


@pytest.mark.parametrize(
    ("reasoned", "rows", "wish", "policy", "said"),
    [
        (2, 3, "off", "off", "notice_thoughts_left_out"),
        (0, 3, "off", "off", "notice_thinking_off"),
        (2, 3, "on", "auto", "notice_thinking_unlearned"),
        (3, 3, "on", "auto", "notice_thinking_learned"),
    ],
)
def test_a_wish_about_thinking_stands_and_what_it_costs_is_said(reasoned, rows, wish, policy, said):
    choice = rules.thinking(reasoned, rows, wish)
    assert (choice.value, choice.reason.partition(".")[2]) == (policy, said)


@pytest.mark.parametrize(("holdout", "stops"), [(0, False), (1, True)])
def test_stopping_early_needs_something_to_measure_on(holdout, stops):
    assert rules.early_stopping(data(holdout=holdout)).value is stops


@pytest.mark.parametrize(
    ("available", "longest", "budget"),
    [
        (16 * GIGA, 200, 1024),  # more gains nothing
        (3 * GIGA, 200, 493),
        (GIGA // 2, 200, 200),  # one example must always fit
        (16 * GIGA, 6000, 6000),
    ],
)
def test_as_many_tokens_at_once_as_memory_allows(available, longest, budget):
    choice = rules.token_budget(data(longest=longest), machine(available=available), base())
    assert choice.value == pytest.approx(budget, rel=0.01)


def test_every_rule_gives_a_reason_that_can_be_said_in_both_languages():
    facts, shape, here = data(), model(), machine()
    choices = [
        rules.holdout_share(5), rules.holdout_share(500), rules.batch_size(data(5)), rules.batch_size(data(500)),
        rules.batch_size(data(5000)), rules.epochs(data(5)), rules.epochs(data(5000)),
        rules.learning_rate(shape, 8, 100), rules.rank(shape, facts), rules.alpha(16, LoraSection()),
        rules.alpha(16, LoraSection(use_rslora=True)), rules.alpha(16, LoraSection(init_lora_weights="pissa")),
        rules.max_length(shape, facts),
        rules.dtype(here), rules.scheduler(), rules.warmup_ratio(), rules.eval_every(100, facts),
        rules.early_stopping(facts), rules.early_stopping(data(holdout=0)), rules.token_budget(facts, here, base()),
    ]  # fmt: skip
    for choice in choices:
        for language in ("en", "zh"):
            assert catalogue(language)[choice.reason].format_map(choice.params)

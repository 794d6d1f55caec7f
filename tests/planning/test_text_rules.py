"""The written rules for plain texts, each as a table of cases, and the plan that they make."""

from __future__ import annotations

import pytest

from danlu.data.encode import TokenCounts
from danlu.i18n import catalogue
from danlu.planning import rules, text_rules
from danlu.planning.facts import DataFacts, TextFacts
from danlu.planning.plan import Plan, decide_text_holdout, make_plan
from danlu.recipe_file import load_recipe
from tests.planning.test_plan import SETS
from tests.planning.test_rules import GIGA, base, machine, model


def texts(sequences=100, *, tokens=100_000, holdout=10, cut=0, documents=3) -> DataFacts:
    counts = TokenCounts(sequences, tokens, tokens, 500, 900, 1024)
    return DataFacts(documents, sequences, holdout, counts, TextFacts(cut, sequences + holdout))


def plan(*words: str, facts: DataFacts) -> Plan:
    recipe = load_recipe(None, ["model=m", "data.train=a.txt", "objective=pretrain", *words])
    share = decide_text_holdout(recipe, facts.texts.pieces, facts.tokens.supervised)
    return make_plan(recipe, base(), facts, machine(), SETS, share)


@pytest.mark.parametrize(("available", "length"), [(16 * GIGA, 1024), (3 * GIGA, 384), (GIGA // 2, 128)])
def test_texts_are_cut_to_what_is_computed_at_once(available, length):
    assert text_rules.max_length(base(), machine(available=available)).value == length


@pytest.mark.parametrize(
    ("pieces", "tokens", "share"),
    [(1, 900, 0.0), (9, 9_000, 0.0), (10, 10_000, 0.1), (1000, 10**6, 0.1), (10_000, 10**7, 0.01)],
)
def test_a_tenth_is_kept_aside_but_not_more_than_can_be_measured_quickly(pieces, tokens, share):
    assert text_rules.holdout_share(pieces, tokens).value == pytest.approx(share)


@pytest.mark.parametrize(
    ("sequences", "size"), [(1, 1), (39, 1), (40, 2), (79, 2), (80, 4), (159, 4), (160, 8), (10**6, 8)]
)
def test_a_pass_has_twenty_steps_where_it_can(sequences, size):
    assert text_rules.batch_size(texts(sequences)).value == size


@pytest.mark.parametrize(
    ("tokens", "passes"),
    [(100, 8), (19_999, 8), (20_000, 4), (999_999, 4), (10**6, 2), (9_999_999, 2), (10**7, 1)],
)
def test_much_text_is_read_less_often(tokens, passes):
    assert text_rules.epochs(texts(tokens=tokens)).value == passes


@pytest.mark.parametrize(
    ("family", "hidden", "batch", "rate"),
    [("llama", 576, 1, 1.2e-4), ("llama", 576, 8, 3.3e-4), ("llama", 4096, 8, 7.1e-5), ("qwen2", 1536, 8, 1.3e-4)],
)
def test_the_rate_is_that_of_a_long_run(family, hidden, batch, rate):
    assert text_rules.learning_rate(model(family, hidden), batch).value == pytest.approx(rate, rel=0.03)
    assert rules.learning_rate(model(family, hidden), batch, 50).value > rate


def test_everything_on_auto_is_decided_by_the_rules_for_texts():
    made = plan(facts=texts(5, tokens=5_000, holdout=0, cut=2))
    chosen = made.settings
    assert (made.objective, made.max_length, made.epochs) == ("pretrain", 1024, 8)
    assert (chosen.batch_size, chosen.steps, chosen.learning_rate) == (1, 40, 1.2e-4)
    assert chosen.stop_loss is None, "five sequences are no five rows to be learned by heart"
    assert chosen.patience is None
    notices = {item.code: item.params for item in made.notices}
    assert set(notices) == {"planning.notice_cut", "planning.notice_few_tokens"}
    assert notices["planning.notice_cut"] == {"cut": 2, "documents": 3, "pieces": 5, "length": 1024}
    assert made.data.pieces == 5
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_what_the_person_chooses_holds():
    made = plan("train.max_length=300", "train.batch_size=3", "data.holdout=0.2", facts=texts(tokens=200_000))
    assert (made.max_length, made.settings.batch_size, made.holdout_share) == (300, 3, 0.2)
    assert made.settings.patience == 3
    assert made.notices == ()


def test_every_reason_can_be_said_in_both_languages():
    facts = texts(cut=1)
    made = plan(facts=facts)
    choices = [text_rules.holdout_share(3, 3), text_rules.holdout_share(50, 50_000)]
    for language in ("en", "zh"):
        for item in (*made.decisions, *choices):
            assert catalogue(language)[item.reason].format_map(item.params)
        for notice in made.notices:
            assert notice.text(language)

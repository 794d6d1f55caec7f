"""Whether beginnings are shared is decided by the very steps of the run, and said."""

from __future__ import annotations

import random

import pytest

from danlu.data.examples import Example
from danlu.planning.sharing import decide_sharing, sharing_factor
from tests.planning.test_plan import plan, recipe


def rows(count: int, prefix: int) -> list[Example]:
    rng = random.Random(1)
    shared = tuple(rng.randrange(300) for _ in range(prefix))
    return [
        Example((*shared, *(rng.randrange(300) for _ in range(30))), (False,) * (prefix + 9) + (True,) * 21, row)
        for row in range(count)
    ]


def decided(prefix: int, *words: str, fast_path: bool = True):
    made = decide_sharing(plan(*words), recipe(*words), rows(16, prefix), fast_path=fast_path)
    return made, made.decisions[-1]


def test_it_is_on_where_it_saves_enough_and_says_how_much():
    made, decision = decided(60)
    assert made.settings.share_prefix
    factor = 16 * 90 / (2 * 60 + 16 * 30)
    assert sharing_factor(rows(16, 60), made.settings) == pytest.approx(factor)
    assert decision.because("en").startswith(
        f"What examples begin with alike is computed once: {factor:.1f} times fewer tokens"
    )


def test_it_is_off_where_it_saves_little():
    made, decision = decided(4)
    assert not made.settings.share_prefix
    assert decision.by == "danlu"
    assert "it pays from 1.15 on" in decision.because("en")


@pytest.mark.parametrize(("word", "prefix"), [("true", 0), ("false", 60)])
def test_what_a_person_chose_is_taken(word, prefix):
    made, decision = decided(prefix, f"train.share_prefix={word}")
    assert made.settings.share_prefix is (word == "true")
    assert decision.by == "recipe"


@pytest.mark.parametrize("word", ["lora.lora_dropout=0.1", "train.neftune_noise_alpha=5"])
def test_nothing_is_shared_with_dropout_or_noise(word):
    made, decision = decided(60, word, "train.share_prefix=true")
    assert not made.settings.share_prefix
    assert "nothing to share" in decision.because("en")


@pytest.mark.parametrize("word", ["true", "auto"])
def test_nothing_is_shared_without_a_fast_path_and_the_plan_says_that_it_is_slow(word):
    made, decision = decided(60, f"train.share_prefix={word}", fast_path=False)
    assert not made.settings.share_prefix
    assert "no fast path" in decision.because("en")
    assert [notice.code for notice in made.notices][-1] == "planning.notice_plain_path"
    assert "planning.notice_plain_path" not in [notice.code for notice in decided(60)[0].notices]

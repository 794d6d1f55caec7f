"""How alike answers are, and which is kept."""

from __future__ import annotations

import pytest

from danlu.evaluation.agreement import consensus, similarity


def test_similarity_is_the_mean_f1_of_character_n_grams():
    assert similarity("I am Mochi.", "i am mochi") == 1
    assert similarity("tea", "") == 0
    assert similarity("", "") == 1
    # "abcd" and "abce": 3 of 4, 2 of 3, 1 of 2 and 0 of 1 n-grams in common.
    assert similarity("abcd", "abce") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    assert similarity("竹里茶馆", "茶馆") == similarity("茶馆", "竹里茶馆") == pytest.approx((4 / 6 + 2 / 4) / 4)


def test_the_answer_closest_to_the_others_is_kept():
    found = consensus(["Tea is green.", "I am Mochi, a panda.", "I am Mochi.", "I am Mochi, panda."])
    assert found.best in {1, 3}
    pairs = [similarity("one", "two"), similarity("one", "one"), similarity("one", "two")]
    assert consensus(["one", "two", "one"]).agreement == pytest.approx(sum(pairs) / 3)
    assert consensus(["one", "one"]).best == 0, "the first of equals, which is the greedy one"
    assert consensus(["", "", "tea"]).best == 2, "saying nothing is no answer"
    assert consensus(["tea"]).agreement == 1

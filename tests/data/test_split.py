"""What is kept aside: about the share asked for, the same rows again, and no copy on the other side."""

from __future__ import annotations

import pytest

from danlu.data.conversations import Conversation
from danlu.data.split import normalise, split_holdout
from danlu.models.messages import Message


def asked(question: str, row: int, answer: str = "a") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), (False, True), row, row)


def questions(count: int, start: int = 0) -> list[Conversation]:
    return [asked(f"question number {n}", n) for n in range(start, start + count)]


def test_every_row_is_on_exactly_one_side_in_the_order_given():
    rows = questions(50)
    split = split_holdout(rows, 0.2, 1)
    assert sorted(split.train + split.holdout, key=lambda item: item.row) == rows
    assert [item.row for item in split.train] == sorted(item.row for item in split.train)


def test_the_same_seed_gives_the_same_choice_and_another_seed_another():
    rows = questions(200)
    assert split_holdout(rows, 0.1, 1) == split_holdout(rows, 0.1, 1)
    assert split_holdout(rows, 0.1, 1) != split_holdout(rows, 0.1, 2)


@pytest.mark.parametrize("added", [1, 20, 150])
@pytest.mark.parametrize("seed", range(5))
def test_adding_rows_moves_no_row_to_the_other_side(seed, added):
    rows = questions(60)
    before = split_holdout(rows, 0.1, seed)
    after = split_holdout(rows + questions(added, start=1000), 0.1, seed)
    assert len(before.holdout) > 1, "chosen so that no row had to be taken to have one"
    assert set(before.holdout) <= set(after.holdout)
    assert set(before.train) <= set(after.train)


def test_the_order_of_the_rows_does_not_matter():
    rows = questions(60)
    assert set(split_holdout(rows[::-1], 0.1, 1).holdout) == set(split_holdout(rows, 0.1, 1).holdout)


def test_the_share_is_about_what_was_asked_for():
    assert split_holdout(questions(2000), 0.1, 42).holdout.__len__() == pytest.approx(200, abs=45)


def test_copies_of_a_question_stay_together():
    rows = [
        asked(text, n) for n, text in enumerate(["Who are you?", "who are you", "WHO  ARE YOU!", "Who are you?"] * 5)
    ]
    rows += questions(30, start=100)
    for seed in range(30):
        split = split_holdout(rows, 0.3, seed)
        sides = {normalise(item.question) for item in split.train} & {
            normalise(item.question) for item in split.holdout
        }
        assert sides == set()


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_both_sides_have_at_least_one_question(count, share):
    for seed in range(10):
        split = split_holdout(questions(count), share, seed)
        assert split.train
        assert split.holdout


@pytest.mark.parametrize(
    ("rows", "share"), [(questions(50), 0.0), (questions(1), 0.5), ([asked("a", 1), asked("A!", 2)], 0.5)]
)
def test_nothing_is_kept_aside_of_one_question_or_for_a_share_of_none(rows, share):
    split = split_holdout(rows, share, 1)
    assert split.holdout == ()
    assert len(split.train) == len(rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Who are you?", "who are you"), ("你是谁?", "你是谁？"), ("ＡＢＣ　１", "abc1"), ("a-b_c", "abc")],
)
def test_the_same_question_written_twice_is_one(one, other):
    assert normalise(one) == normalise(other)


def test_different_questions_stay_different():
    assert normalise("who") != normalise("how")
    assert normalise("è") != normalise("e")

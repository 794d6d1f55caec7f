"""What is kept aside: about the share asked for, the same rows again, and no copy on the other side."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.alike import are_alike, clusters, meaning_of
from danlu.data.conversations import Conversation
from danlu.data.holdout import asked_in_both, questions_aside
from danlu.data.split import Split, below, choose_aside, draw, normalise
from danlu.models.messages import Message


def asked(question: str, row: int, answer: str = "a") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), (False, True), row, row)


def questions(count: int, start: int = 0) -> list[Conversation]:
    return [asked(f"question number {n}", n) for n in range(start, start + count)]


def split_holdout(rows, share, seed, by="question"):
    aside = questions_aside([item.question for item in rows], share, seed, by)
    sides = ([item for item, kept in zip(rows, aside, strict=True) if kept == side] for side in (False, True))
    return Split(*sides)


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
    assert list(split.holdout) == []
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


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
def test_texts_are_folded_as_written_out(text):
    folded = unicodedata.normalize("NFKC", text).casefold()
    assert normalise(text) == "".join(char for char in folded if unicodedata.category(char)[0] in "LNM")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_what_is_chosen_by_draws_alone_is_what_is_chosen_by_keys(share):
    keys = [f"key {number % 40}" for number in range(60)]
    for seed in range(5):
        chosen = choose_aside(keys, share, seed)
        draws = np.array([draw(key, seed) for key in keys])
        assert below(draws, share).tolist() == [key in chosen for key in keys]
    assert below(np.array([0.5]), 0.9).tolist() == [False]


ALIKE = [
    ("When are you open?", "when do you open"),
    ("How do I brew green tea?", "Please tell me: how can I brew green tea?"),
    ("你们几点开门？", "请问你们几点开门呢"),
    ("退货需要几天", "请问退货需要几天？"),
    ("Who are you?", "WHO ARE YOU"),
]
DIFFERENT = [
    ("What is number 3?", "What is number 4?"),
    ("What is 2 + 3?", "What is 3 + 2?"),
    ("Who are you?", "How are you?"),
    ("How do I brew tea?", "How do I brew coffee?"),
    ("你们几点开门？", "你们几点关门？"),
    ("退货需要几天", "换货需要几天"),
    ("Where is the station?", "When is the station open?"),
    ("", "What?"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_the_same_in_nearly_the_same_words_is_alike(one, other):
    assert are_alike(meaning_of(one), meaning_of(other))
    assert clusters([one, "something else entirely", other]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_asks_something_else_is_not_alike(one, other):
    assert not are_alike(meaning_of(one), meaning_of(other))
    assert clusters([one, other]).tolist() == [0, 1]


def test_of_all_like_pairs_among_many_nearly_none_is_missed_and_none_is_made_up():
    draw_words = random.Random(3)
    words = [chr(97 + number % 26) + chr(97 + number // 26) + "word" for number in range(60)]
    asked_so = []
    for _ in range(400):
        chosen = draw_words.sample(words, draw_words.randint(3, 8))
        asked_so += [" ".join(chosen), " ".join(chosen[: max(2, len(chosen) - draw_words.randint(0, 3))])]
    labels = clusters(asked_so)
    meanings = [meaning_of(text) for text in asked_so]
    pairs = [(a, b) for a in range(len(asked_so)) for b in range(a) if are_alike(meanings[a], meanings[b])]
    assert len(pairs) > 300
    # A bucket with thousands of members is looked at in part; here nearly all pairs must be found.
    assert sum(labels[a] == labels[b] for a, b in pairs) / len(pairs) > 0.98
    # Everything in a cluster hangs together by pairs that are alike.
    linked = {number: {number} for number in range(len(asked_so))}
    for a, b in pairs:
        joined = linked[a] | linked[b]
        for number in joined:
            linked[number] = joined
    assert all(int(label) in linked[number] for number, label in enumerate(labels))


def paraphrased(groups: int, start: int = 0) -> list[Conversation]:
    forms = ("When does shop w{n} open?", "when do shop w{n} open", "Please: when does shop w{n} open?")
    wording = [
        form.replace("w{n}", "".join(chr(97 + int(d)) for d in str(10_000 + n)))
        for n in range(groups)
        for form in forms
    ]
    return [asked(text, start + number) for number, text in enumerate(wording)]


def test_paraphrases_are_never_on_both_sides():
    rows = paraphrased(60)
    for seed in range(10):
        split = split_holdout(rows, 0.2, seed, "cluster")
        assert asked_in_both([i.question for i in split.train], [i.question for i in split.holdout]) == 0
        assert split.holdout
        by_question = split_holdout(rows, 0.2, seed)
        assert asked_in_both([i.question for i in by_question.train], [i.question for i in by_question.holdout]) > 0


def test_a_cluster_is_kept_aside_as_often_as_a_question():
    rows = paraphrased(300)
    held = [len(split_holdout(rows, 0.1, seed, "cluster").holdout) for seed in range(12)]
    assert np.mean(held) == pytest.approx(90, rel=0.2)
    assert max(held) <= 180


def test_rows_that_join_no_cluster_move_none_when_they_are_added():
    for seed in range(5):
        rows = paraphrased(80)
        before = split_holdout(rows, 0.1, seed, "cluster")
        after = split_holdout([*rows, *questions(100, start=1000)], 0.1, seed, "cluster")
        assert set(before.holdout) <= set(after.holdout)
        assert set(before.train) <= set(after.train)


def test_questions_that_are_like_no_other_are_chosen_as_one_by_one():
    rows = [asked("".join(chr(97 + int(d)) for d in str(n * 7919 + 100_000)), n) for n in range(100)]
    for seed in range(5):
        assert split_holdout(rows, 0.2, seed, "cluster") == split_holdout(rows, 0.2, seed)


def test_one_large_cluster_does_not_take_all_that_is_measured_on():
    rows = [asked("When do you open?", 0)] * 60 + questions(60)
    for seed in range(20):
        assert len(split_holdout(rows, 0.1, seed, "cluster").holdout) in range(1, 61)
        small = split_holdout(rows, 0.1, seed, "cluster").holdout
        assert len(small) == 60 or all(item.question != "When do you open?" for item in small)

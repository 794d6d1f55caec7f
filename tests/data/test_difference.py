"""What differs between two states of a data set is found row by row, wherever rows stand, and shown word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from danlu.data.datasets import Source
from danlu.data.difference import Difference, difference, words_changed
from danlu.data.reading import Reading
from tests.data.files import question_rows, story, write_json_lines, write_json_rows


def between(folder, old, new) -> Difference:
    files = [write_json_lines(folder / f"{name}.jsonl", rows) for name, rows in (("old", old), ("new", new))]
    return difference(*(Source(file, Reading(), file.stem) for file in files))


def rows_of(items):
    return [(item.row, item.question, item.answer) for item in items]


def test_rows_that_came_went_and_changed_are_told_apart_and_moved_ones_are_the_same(tmp_path):
    old = [*question_rows(6), {"instruction": "When do you open?", "output": "At ten."}]
    new = [
        {"instruction": "When do you open, please?", "output": "At ten."},
        *reversed(question_rows(6)[1:]),
        {"instruction": "Tea?", "output": "Oolong."},
    ]
    new[-2] = {**new[-2], "output": "It is one."}
    found = between(tmp_path, old, new)
    assert found.same == 4
    assert rows_of(found.removed) == [(1, "What is number 0?", "It is 0.")]
    assert rows_of(found.added) == [(7, "Tea?", "Oolong.")]
    assert [(one.question, one.answer, other.question, other.answer) for one, other in found.changed] == [
        ("When do you open?", "At ten.", "When do you open, please?", "At ten."),
        ("What is number 1?", "It is 1.", "What is number 1?", "It is one."),
    ]


def test_copies_are_counted_and_equal_states_have_no_difference(tmp_path):
    row = {"instruction": "Tea?", "output": "Oolong."}
    found = between(tmp_path, [row, row, row], [row])
    assert (found.same, len(found.removed), found.added, found.changed) == (1, 2, [], [])
    same = between(tmp_path, question_rows(5), [dict(reversed(row.items())) for row in question_rows(5)])
    assert same == Difference(same=5), "the order of fields is no matter"


def test_texts_judged_answers_and_talks_are_compared_too(tmp_path):
    texts = between(tmp_path, [{"text": story(2)}], [{"text": story(3)}])
    assert [(one.row, other.row) for one, other in texts.changed] == [(1, 1)]
    pair = {"prompt": "Tea?", "chosen": "Oolong.", "rejected": "No."}
    judged = between(tmp_path, [pair], [pair | {"rejected": "Never."}])
    assert [(one.answer, other.answer) for one, other in judged.changed] == [("Oolong.\nNo.", "Oolong.\nNever.")]
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    more = {"messages": [{"role": "system", "content": "Be brief."}, *talk["messages"]]}
    talks = between(tmp_path, [talk], [more])
    assert [other.answer for _, other in talks.changed] == ["system: Be brief.\nHello"]


def test_files_of_different_families_are_compared_by_what_is_asked(tmp_path):
    old = write_json_rows(tmp_path / "a.json", [{"instruction": "Tea?", "output": "Oolong."}])
    new = write_json_rows(tmp_path / "b.json", [{"问题": "Tea?", "答案": "Green tea."}])
    found = difference(Source(old, Reading(), "a"), Source(new, Reading(), "b"))
    assert [(one.answer, other.answer) for one, other in found.changed] == [("Oolong.", "Green tea.")]


def test_words_are_marked_and_chinese_by_characters():
    assert words_changed("We open at ten.", "We open at nine.") == [
        ("same", "We open at "), ("removed", "ten"), ("added", "nine"), ("same", "."),
    ]  # fmt: skip
    assert words_changed("十点开门", "九点开门") == [("removed", "十"), ("added", "九"), ("same", "点开门")]


@given(st.text(alphabet="ab 茶水.\n", max_size=40), st.text(alphabet="ab 茶水.\n", max_size=40))
def test_both_texts_can_be_read_from_what_is_marked(old, new):
    parts = words_changed(old, new)
    assert "".join(text for kind, text in parts if kind != "added") == old
    assert "".join(text for kind, text in parts if kind != "removed") == new

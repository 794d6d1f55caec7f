"""Two sets of rows are compared: added, removed, changed; a row that has moved is the same."""

from __future__ import annotations

import pytest

from danlu.data.diff import changed_fields, diff_rows, rows_of
from danlu.data.row_source import Source
from danlu.data.word_diff import word_diff
from tests.data.files import question_rows, write_json_lines

TEA = [
    {"instruction": "When are you open?", "output": "At nine."},
    {"instruction": "你们几点开门？", "output": "早上九点。"},
    {"instruction": "How is green tea made?", "output": "With water of 80 degrees."},
]


@pytest.fixture
def compare(tmp_path):
    def compared(old, new):
        sources = [
            Source.named(str(write_json_lines(tmp_path / f"{name}.jsonl", rows)))
            for name, rows in (("old", old), ("new", new))
        ]
        files = [rows_of(source, tmp_path / f"{at}.rows") for at, source in enumerate(sources)]
        return diff_rows(files[0], files[1], (sources[0].family(), sources[1].family()))

    return compared


def test_moved_rows_and_fields_that_say_nothing_are_no_difference(compare):
    moved = [{"output": row["output"], "input": "", "instruction": row["instruction"]} for row in reversed(TEA)]
    found = compare(TEA, moved)
    assert (found.same, found.added, found.removed, found.changed) == (3, (), (), ())


def test_copies_are_counted_one_by_one(compare):
    found = compare([TEA[0], *TEA], [*TEA, TEA[2], TEA[2]])
    assert (found.same, found.removed, found.added) == (3, (1,), (3, 4))


def test_the_same_question_with_another_answer_is_a_changed_row(compare):
    other = {**TEA[0], "output": "At ten."}
    found = compare(TEA, [TEA[2], other, TEA[1]])
    assert [(pair.old, pair.new, pair.question) for pair in found.changed] == [(0, 1, "same")]
    assert (found.same, found.added, found.removed) == (2, (), ())


def test_a_nearly_equal_question_is_a_changed_row_and_another_question_is_not(compare):
    new = [{"instruction": "when do you open", "output": "At nine."}, {"instruction": "Who?", "output": "Me."}]
    found = compare(TEA, [*new, *TEA[1:]])
    assert [(pair.old, pair.new, pair.question) for pair in found.changed] == [(0, 0, "near")]
    assert found.added == (1,)


def test_rows_that_cannot_be_used_are_compared_too(compare):
    found = compare([*TEA, {"instruction": "alone"}], [*TEA, {"instruction": "alone", "output": "no more"}])
    assert [(pair.old, pair.new) for pair in found.changed] == [(3, 3)]


def test_thousands_of_rows_keep_their_counts(compare):
    rows = question_rows(3000)
    new = [*rows[1000:2500], *({**row, "output": "Another."} for row in rows[:500]), *rows[500:1000]]
    found = compare(rows, new)
    assert (found.same, len(found.changed), found.added, len(found.removed)) == (2000, 500, (), 500)


def test_fields_that_differ_are_named():
    (change,) = changed_fields({"a": "x", "b": "", "c": 1}, {"a": "x", "c": 2})
    assert (change.field, change.old, change.new) == ("c", "1", "2")


def test_words_that_differ_are_marked_and_chinese_by_characters():
    def marked(old, new):
        return [(span.sign, span.text) for span in word_diff(old, new)]

    assert marked("open at nine today", "open at ten today") == [
        (" ", "open at "), ("-", "nine"), ("+", "ten"), (" ", " today"),
    ]  # fmt: skip
    assert marked("早上九点开门", "早上十点开门") == [(" ", "早上"), ("-", "九"), ("+", "十"), (" ", "点开门")]
    assert marked("", "new") == [("+", "new")]
    assert marked("same", "same") == [(" ", "same")]

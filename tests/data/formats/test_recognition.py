"""Which family a file is in, and rows that are of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from danlu.data.check import check_file
from danlu.data.formats import ALIASES, FORMATS, format_named, recognise
from danlu.errors import DataError
from tests.data.files import write_json_lines
from tests.data.formats.reading_rows import assistant, family, refused, rows_of, talk, user

ALPACA = {"instruction": "a", "output": "b"}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (ALPACA, "alpaca"),
        ({"question": "a", "answer": "b"}, "columns"),
        (talk(user("a"), assistant("b")), "messages"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "messages"),
        (ALPACA | {"text": "a b"}, "alpaca"),
        (ALPACA | {"messages": [user("a")]}, "messages"),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, "pairs"),
        (talk(user("a"), chosen=assistant("b"), rejected=assistant("c")), "pairs"),
        (talk(user("a"), assistant("b"), label=True), "labels"),
        (ALPACA | {"kto_tag": True}, "labels"),
        ({"prompt": "a", "completion": "b", "label": 1}, "labels"),
        ({"问题": "a", "答案": "b", "评价": "好"}, "labels"),
        (ALPACA | {"label": "sports"}, "alpaca"),
        (ALPACA | {"label": 3}, "alpaca"),
        (talk(user("a"), assistant("b"), label="perhaps"), "labels"),
        ({"text": "a", "label": 1, "question_id": 3}, "text"),
        ({"content": "a", "title": "b", "url": "c"}, "text"),
        ({"正文": "a"}, "text"),
        ({"内容": "a", "来源": "b"}, "text"),
        ({"instruction": "a"}, "questions"),
        ({"问题": "a"}, "questions"),
        ({"question": "a", "category": "b"}, "questions"),
    ],
)
def test_a_row_is_recognised_by_what_it_holds(row, name):
    assert family(row) == name


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"answer": "a"},
        {"body": "a"},
        {"content": "a long text", "summary": "a short one"},
        {"prompt": "a", "text": "b"},
        {"question": "a", "gold_answer": "b"},
        {"question": "a", "remarks": "perhaps the answer"},
        {"a1": 1, "b1": 2},
    ],
)
def test_what_could_be_several_things_is_not_guessed(row):
    error = refused(row)
    assert error.key == "data.unknown_format"
    assert "--columns" in error.message("en")


def test_the_first_rows_decide_together_and_the_odd_one_is_named(tmp_path):
    odd = [
        {"text": "a"},
        {"question": "a", "answer": "b"},
        talk(user("a"), assistant("b")),
        {"prompt": "a", "chosen": "c"},
    ]
    rows = [odd[0], *[ALPACA | {"instruction": f"a{n}"} for n in range(10)], *odd[1:]]
    report = check_file(write_json_lines(tmp_path / "mixed.jsonl", rows))
    assert (report.row_format, report.rows, report.usable) == ("alpaca", 14, 10)
    mixed = {item.row: item.message for item in report.problems if item.code == "formats.mixed"}
    assert list(mixed) == [1, 12, 13, 14]
    for row, name in zip(mixed, ("text", "columns", "messages", "pairs"), strict=True):
        assert f"looks like {name}, while the file is read as alpaca" in mixed[row]


def test_a_question_without_its_answer_among_answers_is_a_mistake_and_no_other_family():
    rows = [{"question": "a", "answer": "b"}] * 3
    assert refused(*rows, {"question": "c"}).key == "formats.no_columns"
    assert refused(*rows, {"question": "c", "answer": None}).params["field"] == "answer"
    assert refused(*[{"question": "c"}] * 3, rows[0]).key == "formats.no_columns"


def test_an_unreadable_label_is_a_mistake_of_its_row_and_no_other_family():
    rows = [ALPACA | {"label": "good"}] * 3
    error = refused(*rows, ALPACA | {"label": "so-so"})
    assert error.key == "formats.label_word"
    assert "--format messages" in error.message("en")


@pytest.mark.parametrize("field", ["images", "videos", "audios"])
def test_rows_with_pictures_or_sounds_are_refused_by_name(field):
    row = talk(user("<image>What is it?"), assistant("Tea."), **{field: ["x"]})
    assert refused(row).where == f"f.jsonl, row 1 (line 1), field {field}"
    assert family(row | {field: []}) == "messages"


def test_a_table_without_a_line_of_names_is_told_to_get_one(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("几点开门,十点\n几点关门,九点\n", encoding="utf-8")
    with pytest.raises(DataError, match="put a line above it") as caught:
        check_file(path)
    assert caught.value.key == "formats.no_header"
    path.write_text("客户提的问题,客服给的回答\n几点关门,九点\n", encoding="utf-8")
    with pytest.raises(DataError, match="--columns question=客户提的问题,answer=客服给的回答"):
        check_file(path)


def test_a_family_has_a_name_that_others_know_it_by():
    assert {format_named(alias).name for alias in ALIASES} == {"messages", "pairs", "labels"}
    for item in FORMATS:
        assert format_named(item.name) is item
        assert item.shown
    with pytest.raises(DataError, match="no format “alpacca”"):
        format_named("alpacca")


def test_rows_are_read_under_a_path_as_under_a_name():
    assert recognise(Path("x.jsonl"), rows_of(ALPACA)).name == "alpaca"

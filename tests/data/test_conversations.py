"""Alpaca rows to conversations, and every way in which a row can be wrong."""

from __future__ import annotations

import pytest

from danlu.data.formats import FORMATS, recognise
from danlu.data.formats.alpaca import AlpacaFormat
from danlu.data.rows import Row
from danlu.errors import DataError
from danlu.models.messages import Message

GOOD = {"instruction": "Who are you?", "output": "Mochi."}


def convert(values):
    row = Row(3, 17, values)
    return AlpacaFormat().convert("f.json", row)


def test_a_plain_row_is_a_question_and_an_answer_that_is_learned():
    conversation = convert({"instruction": "Who?", "input": "", "output": "Mochi."})
    assert conversation.messages == (Message("user", "Who?"), Message("assistant", "Mochi."))
    assert conversation.learn == (False, True)
    assert (conversation.row, conversation.line) == (3, 17)
    assert (conversation.question, conversation.answer) == ("Who?", "Mochi.")


def test_instruction_and_input_are_joined_by_a_line_break():
    assert convert({"instruction": "Translate", "input": "茶", "output": "tea"}).question == "Translate\n茶"


def test_system_comes_first_and_the_answers_of_the_history_are_learned_too():
    conversation = convert(GOOD | {"system": "Be kind.", "history": [["Hi", "Hello"], ["Hm", "Yes?"]]})
    assert [message.role for message in conversation.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert conversation.learn == (False, False, True, False, True, False, True)
    assert conversation.messages[0] == Message("system", "Be kind.")


@pytest.mark.parametrize(
    "nothing", [{"input": None}, {"system": None}, {"history": None}, {"history": []}, {"system": ""}]
)
def test_null_and_empty_optional_fields_are_as_good_as_none(nothing):
    assert len(convert(GOOD | nothing).messages) == 2


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"output": None}, "data.field_missing", "“output” is missing"),
        ({"output": ...}, "data.field_missing", "“output” is missing"),
        ({"instruction": ...}, "data.field_missing", "“instruction” is missing"),
        ({"output": ""}, "data.field_empty", "“output” is empty"),
        ({"output": " \n"}, "data.field_empty", "“output” is empty"),
        ({"instruction": ""}, "data.field_empty", "“instruction” is empty"),
        ({"output": 5}, "data.field_not_text", "must be text, but is a number"),
        ({"output": 0.5}, "data.field_not_text", "a number"),
        ({"output": True}, "data.field_not_text", "true or false"),
        ({"output": ["a"]}, "data.field_not_text", "a list"),
        ({"output": {"a": "b"}}, "data.field_not_text", "an object"),
        ({"input": 5}, "data.field_not_text", "“input”"),
        ({"system": ["a"]}, "data.field_not_text", "“system”"),
        ({"history": "a"}, "data.history_shape", "contains a text"),
        ({"history": {"a": "b"}}, "data.history_shape", "contains an object"),
        ({"history": ["a", "b"]}, "data.history_shape", 'contains "a"'),
        ({"history": [["a"]]}, "data.history_shape", 'contains ["a"]'),
        ({"history": [["a", "b", "c"]]}, "data.history_shape", '["a", "b", "c"]'),
        ({"history": [["a", None]]}, "data.history_shape", '["a", null]'),
        ({"history": [["a", ""]]}, "data.history_shape", '["a", ""]'),
        ({"history": [["a", "b"], [1, "x" * 500]]}, "data.history_shape", "…"),
    ],
)
def test_a_wrong_field_is_refused_with_file_row_line_field_and_remedy(change, key, says):
    values = {name: value for name, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(DataError) as caught:
        convert(values)
    error = caught.value
    assert error.key == key
    assert error.where == f"f.json, row 3 (line 17), field {next(iter(change))}"
    assert says in error.message("en")
    assert len(error.message("en")) < 300


def test_rows_of_another_shape_are_refused_with_the_fields_found():
    with pytest.raises(DataError) as caught:
        recognise("f.json", [Row(1, 1, {"body": [], "id": 1})])
    assert caught.value.key == "data.unknown_format"
    assert "found: body, id" in caught.value.message("en")
    with pytest.raises(DataError, match="found: –"):
        recognise("f.json", [Row(1, 1, {})])


def test_every_format_says_which_fields_it_reads():
    for row_format in FORMATS:
        assert row_format.fields

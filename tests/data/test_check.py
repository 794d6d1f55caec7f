"""The check lists every problem of every row with its place; tokens are counted as the model will see them."""

from __future__ import annotations

import pytest

from danlu.data.check import check_file
from danlu.data.datasets import read_dataset
from danlu.data.encode import count_tokens, encode, require_fitting
from danlu.data.examples import Example
from danlu.errors import DataError
from danlu.models.chat_format import ChatFormat
from tests.data.files import ROWS, question_rows, write_json_rows
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def chat_format():
    return ChatFormat(tiny_tokenizer())


def codes(report):
    return [(problem.code, problem.severity, problem.row) for problem in report.problems]


def test_a_good_file_has_no_problems(tmp_path):
    report = check_file(write_json_rows(tmp_path / "a.json", question_rows(90)))
    assert (report.rows, report.usable, report.duplicates) == (90, 90, 0)
    assert codes(report) == [("checks.no_decline", "info", 0)]
    assert report.verdict.startswith("Ready to learn from: all 90 rows")
    assert report.row_format == "alpaca"
    assert report.tokens is None
    assert report.leaks is None


def test_every_bad_row_is_listed_with_its_place_and_the_good_ones_are_counted(tmp_path):
    bad = [{"instruction": "a"}, {"instruction": "b", "output": 5}, {"instruction": "", "output": "c"}]
    report = check_file(write_json_rows(tmp_path / "a.json", [*question_rows(90), *bad], indent=1))
    assert (report.rows, report.usable) == (93, 90)
    assert codes(report) == [
        ("data.field_missing", "error", 91),
        ("data.field_not_text", "error", 92),
        ("data.field_empty", "error", 93),
        ("checks.no_decline", "info", 0),
    ]
    assert report.verdict == "Not ready: 3 of 93 rows cannot be used; 90 can."
    assert [problem.field for problem in report.problems[:3]] == ["output", "output", "instruction"]
    assert [problem.line for problem in report.problems[:3]] == [362, 365, 369]
    assert "a number" in report.problems[1].message
    assert report.problems[1].fix == "Put it into quotation marks."


def test_copies_and_contradictions_are_warnings(tmp_path):
    rows = [
        *question_rows(90),
        {"instruction": "What is number 3?", "output": "It is 3."},
        {"instruction": "what is number 4", "output": "It is five."},
        {"instruction": "What is number 5?", "output": "it is 5"},
        {"instruction": "What is number 6?", "output": "Six.", "history": [["Hi", "Hello"]]},
    ]
    report = check_file(write_json_rows(tmp_path / "a.json", rows))
    assert codes(report)[:2] == [("data.duplicate", "warning", 91), ("data.contradiction", "warning", 92)]
    assert "row 4" in report.problems[0].message
    assert "row 5" in report.problems[1].message
    assert report.duplicates == 1
    assert report.usable == 94


def test_few_rows_and_fields_that_are_not_read_are_said(tmp_path):
    rows = [{**row, "outputs": "x", "id": 1} for row in ROWS]
    report = check_file(write_json_rows(tmp_path / "a.json", rows))
    assert codes(report) == [("data.unknown_fields", "info", 0), ("data.few_rows", "warning", 0)]
    assert "id, outputs" in report.problems[0].message
    assert "instruction, input, output, system, history" in report.problems[0].fix


def test_a_file_that_is_no_rows_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        check_file(write_json_rows(tmp_path / "a.json", []))


def test_tokens_are_those_of_the_training_sequences(tmp_path, chat_format):
    path = write_json_rows(tmp_path / "a.json")
    report = check_file(path, chat_format)
    examples = encode(read_dataset(path).conversations, chat_format)
    lengths = sorted(len(example.input_ids) for example in examples)
    assert report.tokens.total == sum(lengths)
    assert report.tokens.supervised == sum(sum(example.learn) for example in examples)
    assert (report.tokens.p50, report.tokens.p95, report.tokens.max) == (lengths[1], lengths[2], lengths[2])


def test_encoding_keeps_the_row_and_learns_exactly_the_answers(tmp_path, chat_format):
    conversations = read_dataset(write_json_rows(tmp_path / "a.json")).conversations
    examples = encode(conversations, chat_format)
    assert [example.row for example in examples] == [1, 2, 3]
    for example, conversation in zip(examples, conversations, strict=True):
        learned = [token for token, wanted in zip(example.input_ids, example.learn, strict=True) if wanted]
        answers = [m.content for m in conversation.messages if m.role == "assistant"]
        assert chat_format.tokenizer.decode(learned) == "".join(answer + "<|im_end|>" for answer in answers)


def example(length: int, row: int) -> Example:
    return Example((1,) * length, (False,) + (True,) * (length - 1), row)


def test_lengths_are_counted_as_documented():
    counts = count_tokens([example(length, length) for length in range(1, 101)])
    assert (counts.examples, counts.total, counts.longest) == (100, 5050, 100)
    assert counts.supervised == 5050 - 100
    assert counts.median == 51
    assert counts.p95 == 96
    one = count_tokens([example(7, 1)])
    assert (one.median, one.p95, one.longest) == (7, 7, 7)


def test_rows_that_are_too_long_are_refused_by_number_and_never_cut():
    rows = [example(10 + row, row) for row in range(1, 11)]
    require_fitting(rows, 20, "persona")
    with pytest.raises(DataError) as caught:
        require_fitting(rows, 13, "persona")
    message = caught.value.message("en")
    assert message.startswith("persona, rows 4, 5, 6, 7, 8 …: 7 rows are longer than max_length = 13 tokens")
    assert "train.max_length=20" in message


@pytest.mark.parametrize(
    ("learn", "supervised"),
    [((False, False, False, True, True), 2), ((False, True), 1), ((True, True, False), 1), ((False,), 0)],
)
def test_an_example_knows_how_much_of_it_is_learned(learn, supervised):
    assert Example((9,) * len(learn), learn, 1).supervised == supervised


def test_in_a_folder_each_problem_names_its_file(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    bad = {"instruction": "", "output": "x"}
    write_json_rows(folder / "a.json", [{"instruction": "Tea?", "output": "Oolong."}] * 2)
    write_json_rows(folder / "b.json", [{"instruction": "Cake?", "output": "Plum."}, bad])
    report = check_file(folder)
    assert [(item.file, item.row) for item in report.problems if item.severity == "error"] == [("b.json", 4)]
    assert {item.file for item in report.problems if item.row == 2} == {"a.json"}, "the copy"
    alone = check_file(folder / "b.json")
    assert {item.file for item in alone.problems} == {""}

"""Questions without answers as a kind of their own, and rows that a model has answered."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.data.check import check_file
from danlu.data.datasets import DatasetLibrary, read_dataset, require_kind
from danlu.errors import DataError
from danlu.jobs.gathered import Answers
from tests.data.files import question_rows, write_json_lines, write_json_rows

ASKED = [{"instruction": "Who are you?"}, {"instruction": "Say", "input": "tea", "system": "Short.", "output": None}]


def test_rows_of_which_none_has_an_answer_are_questions(tmp_path):
    read = read_dataset(write_json_rows(tmp_path / "asked.json", ASKED))
    assert (read.kind, read.conversations) == ("questions", ())
    assert [item.content for item in read.questions[1].messages] == ["Short.", "Say\ntea"]
    assert read.questions[1].fields == {"instruction": "Say", "input": "tea", "system": "Short."}
    other = read_dataset(write_json_lines(tmp_path / "asked.jsonl", [{"question": "Tea?"}, {"question": "Mochi?"}]))
    assert other.kind == "questions"
    assert other.questions[0].fields == {"instruction": "Tea?"}


@pytest.mark.parametrize("rows", [
    [*ASKED, {"instruction": "Hi", "output": "Hello"}],
    [{"instruction": "Hi", "output": "Hello"}, *ASKED],
    [{"instruction": "Hi", "text": "Hello"}, {"instruction": "Ho", "output": None}],
])  # fmt: skip
def test_a_missing_answer_among_answers_stays_a_mistake(tmp_path, rows):
    with pytest.raises(DataError, match="“output” is missing"):
        read_dataset(write_json_rows(tmp_path / "rows.json", rows))


@pytest.mark.parametrize("objective", ["sft", "semi", "pretrain", "dpo", "kto"])
def test_no_objective_learns_from_questions_and_the_remedy_is_named(tmp_path, objective):
    library = DatasetLibrary(tmp_path / "library")
    manifest = library.register(str(write_json_rows(tmp_path / "asked.json", ASKED)))
    assert manifest.kind == "questions"
    with pytest.raises(DataError, match=r"asked: .*danlu pseudo-label RUN --questions"):
        require_kind(manifest.name, manifest.kind, objective)


def test_the_check_of_questions_names_rows_that_cannot_be_asked(tmp_path):
    rows = [*ASKED, {"instruction": " "}, ASKED[0], {"instruction": "Hi", "ouput": "Hello"}]
    report = check_file(write_json_rows(tmp_path / "asked.json", rows))
    assert (report.kind, report.rows, report.usable, report.duplicates) == ("questions", 5, 4, 1)
    found = {problem.code: problem for problem in report.problems}
    assert (found["data.field_empty"].row, found["data.field_empty"].field) == (3, "instruction")
    assert "ouput" in found["data.unknown_fields"].message


def answered(**more) -> dict:
    row = {"instruction": "Who?", "output": "Mochi.", "samples": ["Mochi."], "agreement": 0.9, "confidence": 0.8}
    return {**row, "weight": 0.72, "accepted": True, "doubt": None, **more}


def test_what_was_not_accepted_is_left_out_and_counted(tmp_path):
    rows = [answered(), answered(accepted=False, output="", weight=0), *question_rows(2)]
    path = write_json_lines(tmp_path / "labelled.jsonl", rows)
    read = read_dataset(path)
    assert [(item.weight, item.pseudo) for item in read.conversations] == [(0.72, True), (1, False), (1, False)]
    assert [item.row for item in read.left_out] == [2]
    report = check_file(path)
    assert (report.rows, report.usable) == (4, 4)
    said = {problem.code: problem for problem in report.problems}
    assert "2 answers were written by a model; 1 of them" in said["data.pseudo_rows"].message
    assert "data.unknown_fields" not in said


@pytest.mark.parametrize("weight", [0, -1, 1.5, "much", True, float("nan")])
def test_a_weight_that_is_none_is_an_error_with_row_and_field(tmp_path, weight):
    rows = [answered(), answered(instruction="Where?", weight=weight)]
    with pytest.raises(DataError, match=r"row 2 .*weight.*above 0 and up to 1"):
        read_dataset(write_json_lines(tmp_path / "labelled.jsonl", rows))


def test_accepted_is_true_or_false(tmp_path):
    with pytest.raises(DataError, match=r"row 1 .*“accepted” must be true or false"):
        read_dataset(write_json_lines(tmp_path / "labelled.jsonl", [answered(accepted="yes")]))


def test_answers_of_a_model_are_never_kept_aside_nor_learned_where_their_question_is(tmp_path):
    rows = question_rows(20)
    labelled = [answered(instruction=row["instruction"]) for row in rows] + [answered(instruction="New?")]
    path = write_json_lines(tmp_path / "rows.jsonl", [*rows, *labelled])
    read = Answers((read_dataset(path).conversations,), ("",))
    for by in ("question", "cluster"):
        chosen = read.split(0.3, 1, by)
        train, holdout = (
            [read.conversations[n] for n in np.flatnonzero(part)] for part in (chosen.train, chosen.holdout)
        )
        aside = {item.question for item in holdout}
        assert aside
        assert not any(item.pseudo for item in holdout)
        assert not aside & {item.question for item in train}
        assert sum(item.pseudo for item in train) == 21 - len(aside)
    only = Answers(([item for item in read_dataset(path).conversations if item.pseudo],), ("",))
    assert not only.split(0.3, 1).holdout.any()
    assert only.split(0.3, 1).train.all()

"""Questions without answers by commands: checked, shown, answered, and learned from."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import TrainedHome
from tests.data.files import write_json_lines
from tests.jobs.homes import words

QUESTIONS = [{"question": f"What is number {n}?"} for n in range(20, 23)]


@pytest.fixture
def home(trained: TrainedHome):
    """The home with one finished run."""
    return trained.path


@pytest.fixture
def asked(tmp_path):
    return write_json_lines(tmp_path / "asked.jsonl", QUESTIONS)


@pytest.mark.usefixtures("worker_here")
def test_questions_are_answered_and_the_file_is_checked_and_learned(danlu, trained, material, asked, tmp_path):
    out = tmp_path / "labelled.jsonl"
    called = danlu("pseudo-label", trained.run, "--questions", asked, "--out", out, "--samples", 2, "--json")
    report = called.json
    assert (report["run"], report["questions"], report["samples"]) == (trained.run, 3, 2)
    assert report["path"] == str(out)
    assert report["accepted"] + sum(report["doubts"].values()) == 3
    assert "Answering 3 questions, 2 times each" in called.err
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row in rows:  # a person reads, and decides
        row.update(accepted=row is rows[0], output="It is 20.", weight=0.5)
    edited = write_json_lines(tmp_path / "edited.jsonl", rows)
    assert "3 answers were written by a model; 2 of them" in danlu("data", "check", edited).out.replace("\n", " ")
    assert "counts 0.5" in danlu("data", "show", edited).out
    assert "it is left out" in danlu("data", "show", edited, "--row", 2).out
    plan = danlu("plan", *words(material[0], f"[{material[1]},{edited}]")).err
    assert "1 answers that are learned were written by a model and count 0.5" in " ".join(plan.split())


def test_what_was_accepted_is_said_with_a_table(danlu, trained, asked, tmp_path):
    out = tmp_path / "labelled.jsonl"
    called = danlu("pseudo-label", trained.run, "--questions", asked, "--out", out, "--samples", 2)
    assert "of 3 answers accepted." in called.out
    assert "What is number 20?" in called.out
    for column in ("agreement", "confidence", "weight", "accepted"):
        assert column in called.out
    assert str(out) in called.err


@pytest.mark.usefixtures("worker_here")
def test_questions_are_explained(danlu, asked, material):
    shown = danlu("data", "check", asked).out.replace("\n", " ")
    assert "danlu pseudo-label RUN --questions" in shown
    assert danlu("data", "check", asked, "--json").json["kind"] == "questions"
    assert "questions without answers: 3" in danlu("data", "show", asked).out
    assert "What is number 22?" in danlu("data", "show", asked, "--row", 3, "--as-model", material[0]).out
    assert "questions without answers: 3" in danlu("data", "add", asked, "--name", "asked").err
    assert "danlu pseudo-label RUN" in danlu("plan", *words(material[0], asked), expect=1).err


def test_mistakes_are_one_line_before_the_model_is_loaded(danlu, trained, asked, material, tmp_path):
    def refused(*more, expect):
        return danlu("pseudo-label", trained.run, *more, expect=expect).line

    out = tmp_path / "out.jsonl"
    assert "somebody may have edited it" in refused("--questions", asked, "--out", asked, expect=2)
    assert "end with .jsonl" in refused("--questions", asked, "--out", tmp_path / "out.txt", expect=2)
    assert "There is no folder" in refused("--questions", asked, "--out", tmp_path / "no" / "out.jsonl", expect=2)
    assert "does not hold questions alone" in refused("--questions", material[1], "--out", out, expect=1)
    assert "There is no data set and no file" in refused("--questions", "nothing", "--out", out, expect=1)
    assert not out.exists()

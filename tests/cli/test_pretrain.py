"""Learning plain texts by commands: what is printed, and what the wrong kind of data is told."""

from __future__ import annotations

import pytest

from tests.data.files import story
from tests.jobs.homes import words

pytestmark = pytest.mark.usefixtures("worker_here")


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "notes.txt"
    path.write_text(story(), encoding="utf-8")
    return path


def test_a_text_is_trained_and_proved_by_commands(danlu, material, notes):
    more = ["objective=pretrain", "train.max_length=128"]
    called = danlu("train", *words(material[0], notes, *more), "--json")
    report = called.json
    assert report["status"] == "finished"
    shown = " ".join(called.err.split())
    assert "notes: plain text, documents: 1" in shown
    assert "1 of 1 documents are longer than 128 tokens" in shown
    assert "Texts are cut into pieces" not in shown, "the length was chosen"
    assert "step 0: “" in shown
    assert "” → " in shown

    page = notes.parent / "proof.html"
    called = danlu("eval", report["run"], "--report", page, "--json")
    proof = called.json
    assert proof["probes"] == {"n": 0, "pass_before": 0, "pass_after": 0, "items": []}
    assert proof["heldout"]["perplexity_after"] < proof["heldout"]["perplexity_before"]
    assert set(proof["continuations"][0]) == {"opening", "before", "after"}
    assert "Asking the probe questions" not in called.err
    assert "perplexity" in page.read_text(encoding="utf-8")
    refused = danlu("eval", report["run"], "--data", material[1], expect=1).line
    assert "objective pretrain learns plain texts" in refused


def test_the_wrong_kind_of_data_is_one_line(danlu, home, material, notes):
    line = danlu("quickstart", "--data", notes, "--no-serve", expect=1).err.strip().splitlines()[-1]
    assert "notes: This data set holds plain texts" in line
    assert "objective=pretrain" in line
    refused = danlu("plan", *words(*material, "objective=pretrain"), expect=1).err
    assert "This data set holds questions and answers" in refused
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())

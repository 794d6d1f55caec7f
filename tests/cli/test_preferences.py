"""Judged answers by commands: what is shown while training, by the check, of a row, and of a wrong objective."""

from __future__ import annotations

import pytest

from tests.data.files import write_json_rows
from tests.data.test_preferences import label_rows, pair_rows
from tests.jobs.homes import words

pytestmark = pytest.mark.usefixtures("worker_here")


def test_pairs_are_trained_and_proved_by_commands(danlu, material, tmp_path):
    pairs = write_json_rows(tmp_path / "pairs.json", pair_rows(12))
    called = danlu("train", *words(material[0], pairs, "objective=dpo", "train.learning_rate=3e-3"), "--json")
    shown = " ".join(called.err.split())
    assert "pairs: pairs of a chosen and a rejected answer: 12" in shown
    assert "preference.beta" in shown
    assert "Asking the model as it is for its scores" in shown
    assert "on the right side in" in shown
    proof = danlu("eval", called.json["run"], "--json").json
    assert set(proof["preferences"]) == {"n", "preferred_before", "preferred_after", "moved"}
    assert set(proof["answered"][0]) == {"opening", "before", "after"}


def test_rows_with_judgements_are_checked_and_shown(danlu, tmp_path):
    labels = write_json_rows(tmp_path / "labels.json", label_rows(4))
    report = danlu("data", "check", labels, "--json").json
    assert (report["kind"], report["usable"]) == ("labels", 4)
    shown = danlu("data", "show", labels, "--row", "2").out
    assert "the answer that is not" in shown
    assert "It is 1." in shown
    both = danlu("data", "show", write_json_rows(tmp_path / "pairs.json", pair_rows(1))).out
    assert "the answer that is wanted" in both
    assert "I do not know 0." in both


def test_the_wrong_objective_is_one_line(danlu, material, tmp_path):
    pairs = write_json_rows(tmp_path / "pairs.json", pair_rows(3))
    refused = danlu("plan", *words(material[0], pairs), expect=1).err
    assert "Set objective=dpo" in refused
    assert "does not look at this field" in danlu("plan", *words(*material, "preference.beta=1"), expect=1).err

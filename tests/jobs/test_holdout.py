"""A data set of its own to measure on: nothing of the training rows is kept aside, and copies are counted and said."""

from __future__ import annotations

import pytest

from danlu.errors import DataError, NotFoundError
from danlu.jobs import pipeline, preparing
from danlu.training.forward import LossModel
from tests.data.files import question_rows, write_json_rows
from tests.jobs.homes import assert_same_bits, never, quiet, recipe, stopped_and_resumed


def test_all_rows_are_learned_and_the_other_data_are_measured_on(home, material, tmp_path):
    other = write_json_rows(tmp_path / "exam.json", question_rows(15)[10:])
    wanted = recipe(*material, f"data.holdout={other}")
    prepared = preparing.prepare(home, wanted, quiet)
    assert (len(prepared.examples), len(prepared.heldout)) == (12, 5)
    assert (prepared.plan.holdout_share, prepared.plan.holdout_dataset.name) == (0.0, "exam")
    (notice,) = [item for item in prepared.plan.notices if item.code == "planning.notice_holdout_copies"]
    assert notice.params == {"count": 2, "rows": 5, "name": "exam"}, "two of the five are among the twelve"
    assert "2 of the 5 rows of exam" in notice.text("en")

    before = LossModel(prepared.model).mean_loss(prepared.heldout, 1 << 20)
    report = pipeline.train(prepared, quiet, never)
    assert report.heldout_loss_before == pytest.approx(before, rel=1e-5)
    other.unlink()
    reopened = preparing.reopen(home, prepared.run.name, quiet)
    assert reopened.heldout == prepared.heldout
    assert pipeline.prove_run(reopened, quiet).heldout.n == 5


def test_a_stopped_run_measured_on_other_data_goes_on_to_the_same_bits(home, material, tmp_path):
    other = write_json_rows(tmp_path / "exam.json", question_rows(15)[12:])
    wanted = recipe(*material, f"data.holdout={other}", "train.num_train_epochs=auto", "train.max_steps=5")
    whole = preparing.prepare(home, wanted, quiet, predict_cost=False)
    assert pipeline.train(whole, quiet, never).steps == 5
    assert not [item for item in whole.plan.notices if item.code == "planning.notice_holdout_copies"]
    again, _ = stopped_and_resumed(home, wanted, after=2)
    assert_same_bits(whole.run, again.run)


def test_texts_are_measured_on_other_texts(home, material, tmp_path):
    learned, exam = tmp_path / "learned.txt", tmp_path / "exam.txt"
    learned.write_text("The red panda keeps the teahouse. " * 40, encoding="utf-8")
    exam.write_text("The teahouse stands in the bamboo. " * 10, encoding="utf-8")
    words = ["objective=pretrain", f"data.holdout={exam}", "train.max_length=64"]
    prepared = preparing.prepare(home, recipe(material[0], learned, *words), quiet, predict_cost=False)
    text = prepared.chat_format.tokenizer.decode(prepared.heldout[0].input_ids)
    assert "bamboo" in text
    assert not any("bamboo" in prepared.chat_format.tokenizer.decode(item.input_ids) for item in prepared.examples)
    assert preparing.reopen(home, prepared.run.name, quiet).heldout == prepared.heldout


@pytest.mark.parametrize(("name", "kind"), [("nothing", NotFoundError), ("exam.txt", DataError)])
def test_what_cannot_be_measured_on_is_refused_and_leaves_no_run(home, material, tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exam.txt").write_text("A text.", encoding="utf-8")
    with pytest.raises(kind):
        preparing.prepare(home, recipe(*material, f"data.holdout={name}"), quiet)
    assert list(home.runs.iterdir()) == []

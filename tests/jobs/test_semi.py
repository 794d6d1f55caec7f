"""Answers and texts from a recipe to a proof and a version, with a tiny model: everything real but the size."""

from __future__ import annotations

import pytest

from danlu.errors import DataError, RecipeError
from danlu.jobs import pipeline, preparing
from danlu.planning.sharing import sharing_factor
from danlu.settings import Home
from tests.data.files import write_texts
from tests.jobs.homes import quiet, recipe, write_material


def test_the_path_from_answers_and_texts_to_a_version(tmp_path):
    home = Home(tmp_path / "home").make()
    model, rows = write_material(tmp_path)
    corpus = write_texts(tmp_path / "corpus.jsonl", 6)
    wanted = recipe(model, rows, "objective=semi", f"data.unlabelled={corpus}", "train.learning_rate=5e-3")
    prepared = preparing.prepare(home, wanted, quiet)
    plan = prepared.plan
    texts = [example for example in prepared.examples if example.text]
    assert (plan.settings.text_weight, plan.settings.batch_size) == (0.5, 3)
    assert texts
    (sharing,) = [item for item in plan.decisions if item.field == "train.share_prefix"]
    factor = round(sharing_factor(prepared.examples, plan.settings), 2)
    assert sharing.params["factor"] == factor, "counted with the texts that the steps hold"
    assert 1 <= plan.settings.texts_per_step <= 4
    assert {item.field for item in plan.decisions} >= {"semi.text_weight", "semi.texts_per_step"}
    assert any("Each step learns 3 answers" in item.text("en") for item in plan.notices)
    assert not any(example.text for example in prepared.heldout)

    report = pipeline.train(prepared, quiet, lambda: False)
    assert report.epochs == 2
    assert report.heldout_loss < report.heldout_loss_before
    reopened = preparing.reopen(home, prepared.run.name, quiet)
    assert list(reopened.examples) == list(prepared.examples)
    proof = pipeline.prove_run(reopened, quiet)
    assert proof.heldout.loss_after == report.heldout_loss
    assert pipeline.publish(reopened, proof, quiet).export("gguf").agreement.token_ids == 1.0


def test_what_does_not_go_together_is_refused_with_a_remedy(tmp_path):
    home = Home(tmp_path / "home").make()
    model, rows = write_material(tmp_path)
    with pytest.raises(RecipeError, match="none are named"):
        preparing.prepare(home, recipe(model, rows, "objective=semi"), quiet)
    with pytest.raises(RecipeError, match="Set objective=semi"):
        preparing.prepare(home, recipe(model, rows, f"data.unlabelled={rows}"), quiet)
    words = ("objective=semi", f"data.unlabelled={rows}", "train.label_smoothing_factor=0.1")
    with pytest.raises(RecipeError, match="does not smooth"):
        preparing.prepare(home, recipe(model, rows, *words), quiet)
    with pytest.raises(DataError, match=r"Name it under data\.train"):
        preparing.prepare(home, recipe(model, rows, "objective=semi", f"data.unlabelled={rows}"), quiet)

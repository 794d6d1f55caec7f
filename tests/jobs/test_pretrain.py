"""Plain texts from a recipe to a proof and a version, with a tiny model: everything real but the size."""

from __future__ import annotations

import json

import pytest

from danlu.data.examples import unpacked
from danlu.errors import DataError, RecipeError
from danlu.evaluation.result import Proof
from danlu.events import Sample
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened
from danlu.recipe_file import load_recipe
from tests.data.files import question_rows, story, write_json_rows, write_texts
from tests.jobs.homes import assert_same_bits, never, quiet, stopped_and_resumed
from tests.tiny import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(story(), encoding="utf-8")
    return path


def recipe(model, data, *more: str):
    return load_recipe(
        None,
        [
            f"model={model}", f"data.train={data}", "objective=pretrain", "train.max_length=128", "train.batch_size=2",
            "train.num_train_epochs=2", "train.dtype=float32", "train.learning_rate=5e-3", "eval.every=4", *more,
        ],
    )  # fmt: skip


def test_the_path_from_texts_to_a_version(home, model, notes, tmp_path):
    texts = write_texts(tmp_path / "corpus.jsonl")
    told = []
    prepared = preparing.prepare(home, recipe(model, [str(notes), str(texts)]), told.append)
    plan, run = prepared.plan, prepared.run
    assert (plan.objective, plan.max_length, plan.data.rows) == ("pretrain", 128, 13)
    assert plan.data.supervised_tokens == sum(example.supervised for example in prepared.examples)
    assert {item.code for item in plan.notices} == {"planning.notice_cut", "planning.notice_few_tokens"}
    assert plan.prediction.predicted_seconds > 0
    assert prepared.heldout
    form = prepared.document_format
    documents = [story(), *(json.loads(line)["text"] for line in texts.read_text(encoding="utf-8").splitlines())]
    everything = unpacked([*prepared.examples, *prepared.heldout])
    assert sum(piece.supervised for piece in everything) == sum(map(len, form.ids(documents))), "not a token is lost"
    assert len(everything) == plan.data.pieces

    report = pipeline.train(prepared, told.append, never)
    assert report.heldout_loss < report.heldout_loss_before
    samples = [item.event for item in told if isinstance(item, Happened) and isinstance(item.event, Sample)]
    assert len(samples) >= 2
    assert all(answer.question and answer.passed is None for sample in samples for answer in sample.answers)

    reopened = preparing.reopen(home, run.name, quiet)
    assert (reopened.examples, reopened.heldout) == (prepared.examples, prepared.heldout)
    assert reopened.openings == prepared.openings
    proof = pipeline.prove_run(reopened, quiet)
    assert Proof.model_validate_json((run.path / "proof.json").read_bytes()) == proof
    assert (proof.heldout.loss_before, proof.heldout.loss_after) == (report.heldout_loss_before, report.heldout_loss)
    assert proof.heldout.perplexity_after < proof.heldout.perplexity_before
    assert (proof.heldout.texts, proof.heldout.learned, proof.probes.n) == (True, False, 0)
    assert [item.opening for item in proof.continuations] == [item.text for item in prepared.openings]
    assert proof.continuations
    assert proof.general.n == 30
    assert "On text kept aside the perplexity went from" in proof.verdict("en")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Perplexity on text kept aside" in page
    assert "How each goes on with a text" in page
    assert "Probe questions" not in page

    version = pipeline.publish(reopened, proof, quiet)
    assert version.proof.probes_n == 0
    assert version.export("gguf").agreement.token_ids == 1.0


def test_a_short_text_is_proved_on_itself(home, model, tmp_path):
    path = tmp_path / "short.md"
    path.write_text("# Mochi\n\n" + story(4), encoding="utf-8")
    prepared = preparing.prepare(home, recipe(model, path), quiet, predict_cost=False)
    assert prepared.heldout == []
    pipeline.train(prepared, quiet, never)
    proof = pipeline.prove_run(prepared, quiet)
    assert proof.heldout.learned
    assert proof.heldout.loss_after < proof.heldout.loss_before
    assert "Nothing was kept aside" in proof.verdict("en")
    assert "没有留出文本" in proof.verdict("zh")
    assert "Perplexity on the text learned" in (prepared.run.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_texts_are_learned_by_the_other_methods_too(home, model, tmp_path, method):
    path = write_texts(tmp_path / "corpus.jsonl", 4)
    rate = "train.learning_rate=1e-3"
    prepared = preparing.prepare(home, recipe(model, path, f"method={method}", rate), quiet, predict_cost=False)
    pipeline.train(prepared, quiet, never)
    proof = pipeline.prove_run(preparing.reopen(home, prepared.run.name, quiet), quiet)
    assert proof.heldout.loss_after < proof.heldout.loss_before
    assert any(item.before != item.after for item in proof.continuations)


def test_no_more_documents_are_read_than_wanted(home, model, tmp_path):
    path = write_texts(tmp_path / "corpus.jsonl", 8)
    prepared = preparing.prepare(home, recipe(model, path, "data.max_samples=3"), quiet, predict_cost=False)
    assert prepared.plan.data.rows == 3
    assert preparing.reopen(home, prepared.run.name, quiet).examples == prepared.examples


def test_a_stopped_run_goes_on_to_the_same_bits(home, model, notes):
    whole = preparing.prepare(home, recipe(model, notes), quiet, predict_cost=False)
    pipeline.train(whole, quiet, never)
    again, _ = stopped_and_resumed(home, recipe(model, notes), after=3)
    assert_same_bits(whole.run, again.run)


def test_questions_may_be_asked_of_a_model_that_learns_texts(home, model, notes, tmp_path):
    probes = tmp_path / "probes.jsonl"
    probes.write_text('{"question": "Who pours tea?", "must_include": ["Mochi"]}\n', encoding="utf-8")
    prepared = preparing.prepare(home, recipe(model, notes, f"eval.probes={probes}"), quiet, predict_cost=False)
    told = []
    pipeline.train(prepared, told.append, never)
    asked = [item.event for item in told if isinstance(item, Happened) and isinstance(item.event, Sample)]
    assert asked[0].answers[0].question == "Who pours tea?"
    proof = pipeline.prove_run(prepared, quiet)
    assert (proof.probes.n, len(proof.continuations)) == (1, len(prepared.openings))


def test_other_texts_can_be_measured_on_and_conversations_cannot(home, model, notes, tmp_path):
    prepared = preparing.prepare(home, recipe(model, notes), quiet, predict_cost=False)
    pipeline.train(prepared, quiet, never)
    other = write_texts(tmp_path / "other.jsonl", 3)
    measured = preparing.reopen(home, prepared.run.name, quiet, data=str(other))
    assert sum(piece.row > 0 for piece in unpacked(measured.heldout)) >= 3
    proof = pipeline.prove_run(measured, quiet, aside=True)
    assert not proof.heldout.learned
    rows = write_json_rows(tmp_path / "rows.json", question_rows(3))
    with pytest.raises(DataError, match="objective pretrain learns plain texts"):
        preparing.reopen(home, prepared.run.name, quiet, data=str(rows))


def test_the_wrong_kind_of_data_is_refused_with_the_objective_that_fits(home, model, notes, tmp_path):
    rows = write_json_rows(tmp_path / "rows.json", question_rows(3))
    with pytest.raises(DataError, match="Set objective=sft"):
        preparing.prepare(home, recipe(model, rows), quiet)
    with pytest.raises(DataError, match="Set objective=pretrain"):
        preparing.prepare(home, recipe(model, notes, "objective=sft"), quiet)
    with pytest.raises(RecipeError, match=r"longer than the model can take \(512\)"):
        preparing.prepare(home, recipe(model, notes, "train.max_length=513"), quiet)
    assert list(home.runs.iterdir()) == []

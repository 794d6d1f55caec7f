"""The whole path of judged answers: data, plan, training, proof, export; and a stopped run that goes on."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from danlu.errors import DataError, RecipeError, TrainingError
from danlu.evaluation.result import Proof
from danlu.events import Eval, Sample, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened
from tests.data.files import question_rows, write_json_rows
from tests.data.test_preferences import label_rows, pair_rows
from tests.jobs.homes import assert_same_bits, never, quiet, recipe, stopped_and_resumed
from tests.tiny import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def pairs(tmp_path):
    return write_json_rows(tmp_path / "pairs.json", pair_rows(12))


@pytest.fixture
def labels(tmp_path):
    return write_json_rows(tmp_path / "labels.json", label_rows(24))


def events(told, kind):
    return [item.event for item in told if isinstance(item, Happened) and isinstance(item.event, kind)]


def test_the_path_from_pairs_to_a_version(home, model, pairs):
    told = []
    made = recipe(model, pairs, "objective=dpo", "train.learning_rate=3e-3", "train.num_train_epochs=4")
    prepared = preparing.prepare(home, made, told.append)
    plan, run = prepared.plan, prepared.run
    assert plan.settings.preference.objective == "dpo"
    assert plan.settings.preference.beta == 0.1
    assert {item.code for item in plan.notices} == {"planning.notice_few_judged"}
    assert plan.prediction.predicted_seconds > 0
    assert plan.settings.token_budget >= max(len(example.input_ids) for example in prepared.examples)

    report = pipeline.train(prepared, told.append, never)
    assert report.heldout_loss_before == pytest.approx(0.6931, abs=1e-3)
    assert report.heldout_loss < report.heldout_loss_before
    steps = events(told, Step)
    assert steps[-1].margin > steps[0].margin == pytest.approx(0, abs=1e-4)
    assert steps[-1].preferred == 1.0
    assert events(told, Eval)[-1].preferred == 1.0
    assert all(answer.passed is None for sample in events(told, Sample) for answer in sample.answers)

    reopened = preparing.reopen(home, run.name, quiet)
    assert (reopened.examples, reopened.heldout) == (prepared.examples, prepared.heldout)
    proof = pipeline.prove_run(reopened, quiet)
    assert Proof.model_validate_json((run.path / "proof.json").read_bytes()) == proof
    assert proof.preferences.n == len(prepared.heldout)
    assert proof.preferences.moved == 1.0
    assert (proof.heldout.loss_before, proof.heldout.loss_after) == (report.heldout_loss_before, report.heldout_loss)
    assert (proof.probes.n, len(proof.answered)) == (0, len(prepared.heldout))
    assert "comparisons kept aside" in proof.verdict("en")
    assert "在留出的" in proof.verdict("zh")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Finds the good answer likelier, kept aside" in page

    measured = preparing.reopen(home, run.name, quiet, data=str(pairs))
    again = pipeline.prove_run(measured, quiet, aside=True)
    assert again.preferences.n == 12
    version = pipeline.publish(reopened, proof, quiet)
    assert version.export("gguf").agreement.token_ids == 1.0


@pytest.mark.parametrize(
    ("objective", "method"),
    [("dpo", "full"), ("kto", "lora"), ("kto", "freeze"), ("orpo", "lora"), ("orpo", "full"), ("dpo", "qlora")],
)
def test_a_stopped_run_goes_on_to_the_same_bits(home, model, pairs, labels, objective, method):
    rate = "1e-3" if method in {"full", "freeze"} else "3e-3"
    words = [f"objective={objective}", f"method={method}", f"train.learning_rate={rate}", "eval.every=6"]
    made = recipe(model, labels if objective == "kto" else pairs, *words)
    whole = preparing.prepare(home, made, quiet, predict_cost=False)
    pipeline.train(whole, quiet, never)
    again, report = stopped_and_resumed(home, made, after=3)
    assert (again.run.path / "reference.safetensors").exists() == (objective != "orpo")
    assert report.heldout_loss < report.heldout_loss_before
    assert_same_bits(whole.run, again.run)
    if objective == "kto":
        assert pipeline.prove_run(again, quiet).preferences.moved > 0.5


def test_pairs_are_learned_as_labels_too_and_proved_on_themselves(home, model, pairs):
    made = recipe(model, pairs, "objective=kto", "data.holdout=0", "train.learning_rate=3e-3")
    prepared = preparing.prepare(home, made, quiet)
    assert (prepared.plan.data.train, prepared.plan.data.rows) == (24, 12)
    pipeline.train(prepared, quiet, never)
    proof = pipeline.prove_run(prepared, quiet)
    assert proof.heldout.learned
    assert "Nothing was kept aside; of" in proof.verdict("en")
    assert "Loss on the answers learned" in (prepared.run.path / "report.html").read_text(encoding="utf-8")


def test_the_wrong_kind_and_unused_settings_are_refused(home, model, pairs, labels, tmp_path):
    rows = write_json_rows(tmp_path / "rows.json", question_rows(3))
    for file, objective, advice in (
        (rows, "dpo", "Set objective=sft"),
        (pairs, "sft", "Set objective=dpo"),
        (labels, "orpo", "Set objective=kto"),
    ):
        with pytest.raises(DataError, match=advice):
            preparing.prepare(home, recipe(model, file, f"objective={objective}"), quiet)
    for words, message in (
        (["objective=sft", "preference.beta=0.2"], "does not look at this field"),
        (["objective=orpo", "preference.loss_type=ipo"], "objectives that do: dpo"),
        (
            ["objective=dpo", "preference.loss_type=ipo", "preference.label_smoothing=0.1"],
            "belongs to loss_type sigmoid",
        ),
        (["objective=dpo", "train.label_smoothing_factor=0.1"], "compares whole answers"),
    ):
        with pytest.raises(RecipeError, match=message):
            preparing.prepare(home, recipe(model, pairs, *words), quiet)


def test_a_reference_of_other_examples_is_refused(home, model, pairs):
    prepared = preparing.prepare(home, recipe(model, pairs, "objective=dpo"), quiet, predict_cost=False)
    save_file({"scores": torch.zeros(3, 2)}, prepared.run.path / "reference.safetensors")
    with pytest.raises(TrainingError, match="belong to other examples"):
        pipeline.train(prepared, quiet, never)
    last = json.loads((prepared.run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["code"] == "training.reference_mismatch"

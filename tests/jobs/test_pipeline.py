"""From a recipe to a proof in one process, with a tiny model: everything real but the size."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from danlu.errors import (
    ConflictError,
    DanluError,
    DataError,
    ExportError,
    ModelError,
    NotFoundError,
    RecipeError,
    TrainingError,
)
from danlu.evaluation.result import Proof
from danlu.events import Planned, Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.exporting import export_run
from danlu.jobs.messages import Happened, PlanMade, StageBegan, StageEnded, Trained
from danlu.jobs.runs import Runs
from danlu.models.load import load_model
from tests.data.files import question_rows, write_json_rows
from tests.jobs.homes import never, quiet, recipe
from tests.models.templates import CHATML
from tests.tiny import tiny_tokenizer, write_tiny_model


def test_the_path_from_a_recipe_to_a_proof(home, material):
    told = []
    prepared = preparing.prepare(home, recipe(*material), told.append)
    run = prepared.run
    assert prepared.plan.settings.steps == 6
    assert (len(prepared.examples), len(prepared.heldout)) == (prepared.plan.data.train, prepared.plan.data.holdout)
    assert prepared.plan.prediction.predicted_seconds > 0
    assert run.plan() == prepared.plan
    assert [item.run for item in told if isinstance(item, PlanMade)] == [run.name]
    assert run.status() == "planned"

    report = pipeline.train(prepared, told.append, never)
    assert run.status() == "finished"
    assert run.report() == report == next(item.report for item in told if isinstance(item, Trained))
    assert (report.status, report.steps, report.adapter) == ("finished", 6, str(run.adapter))
    assert report.plan == prepared.plan.prediction
    logged = [item.event for item in run.events()]
    assert logged == [item.event for item in told if isinstance(item, Happened)]
    assert isinstance(logged[0], Planned)

    reopened = preparing.reopen(home, run.name, quiet)
    assert reopened.examples == prepared.examples
    assert reopened.heldout == prepared.heldout
    proof = pipeline.prove_run(reopened, told.append)
    assert Proof.model_validate_json((run.path / "proof.json").read_bytes()) == proof
    assert (proof.heldout.loss_before, proof.heldout.loss_after) == (report.heldout_loss_before, report.heldout_loss)
    assert proof.unseen
    assert "<svg" in (run.path / "report.html").read_text(encoding="utf-8")
    stages = [item.stage for item in told if isinstance(item, StageBegan)]
    assert stages == ["data", "model", "plan", "train", "eval"]
    assert [item.stage for item in told if isinstance(item, StageEnded)] == stages


@pytest.mark.parametrize("words", [("method=full",), ("method=freeze", "freeze.layers=1", "freeze.extra_modules=norm")])
def test_a_run_that_changes_the_model_itself_is_proved_and_published(home, material, words):
    prepared = preparing.prepare(home, recipe(*material, *words, "train.learning_rate=1e-3"), quiet)
    report = pipeline.train(prepared, quiet, never)
    run = prepared.run
    assert (report.adapter, report.weights) == (None, str(run.path / "weights"))
    assert run.report() == report
    reopened = preparing.reopen(home, run.name, quiet)
    proof = pipeline.prove_run(reopened, quiet)
    assert proof.heldout.loss_after == report.heldout_loss
    assert proof.general.kl > 0
    version = pipeline.publish(reopened, proof, quiet, "f32")
    assert [item.format for item in version.exports] == ["gguf"]
    export_run(home, run, home.root / "out", "merged", "f32")
    merged = load_model(home.root / "out", "float32")
    ids = torch.tensor([[5, 9, 200, 31, 77]])
    torch.testing.assert_close(merged(input_ids=ids).logits, reopened.model(input_ids=ids).logits)
    with pytest.raises(ExportError) as caught:
        export_run(home, run, home.root / "adapter", "adapter", "f32")
    assert caught.value.key == "export.no_adapter_made"


def test_a_run_on_a_quantised_base_is_proved_and_published(home, material):
    prepared = preparing.prepare(home, recipe(*material, "method=qlora"), quiet)
    assert any(notice.code == "planning.notice_qlora" for notice in prepared.plan.notices)
    assert pipeline.train(prepared, quiet, never).adapter == str(prepared.run.adapter)
    proof = pipeline.prove_run(prepared, quiet)
    version = pipeline.publish(prepared, proof, quiet, "f32")
    assert {item.format for item in version.exports} == {"gguf", "adapter"}


def test_a_stop_file_stops_the_run_which_then_goes_on_to_the_same_bits(home, material):
    def weights(run):
        return load_file(run.adapter / "adapter_model.safetensors")

    whole = preparing.prepare(home, recipe(*material), quiet, predict_cost=False)
    pipeline.train(whole, quiet, never)

    parts = preparing.prepare(home, recipe(*material), quiet, predict_cost=False)
    parts.run.stop_file.touch()  # left over from before: no reason to stop now

    def stop_at_two(message) -> None:
        if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == 2:
            parts.run.stop_file.touch()

    report = pipeline.train(parts, stop_at_two, never)
    assert (report.status, report.steps, report.adapter) == ("stopped", 2, None)
    assert parts.run.status() == "stopped"
    with pytest.raises(TrainingError) as caught:
        pipeline.prove_run(parts, quiet)
    assert caught.value.key == "jobs.not_finished"

    again = preparing.reopen(home, parts.run.name, quiet)
    assert pipeline.train(again, quiet, never, resume=True).status == "finished"
    starts = [item.event.from_step for item in parts.run.events() if isinstance(item.event, Started)]
    assert starts == [0, 2]
    one, other = weights(whole.run), weights(parts.run)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_failure_stands_in_the_log_and_in_the_state(home, material):
    prepared = preparing.prepare(home, recipe(*material), quiet, predict_cost=False)
    next(prepared.model.get_base_model().parameters()).data[:] = float("nan")
    with pytest.raises(TrainingError):
        pipeline.train(prepared, quiet, never)
    assert prepared.run.status() == "failed"
    last = prepared.run.events()[-1].event
    assert (last.type, last.code) == ("failed", "training.not_a_number")


def test_a_run_that_is_being_trained_is_not_trained_twice(home, material):
    prepared = preparing.prepare(home, recipe(*material), quiet, predict_cost=False)
    other = type(prepared.run)(prepared.run.path)
    with other.locked(), pytest.raises(ConflictError):
        pipeline.train(prepared, quiet, never)


def test_the_system_prompt_is_trained_with(home, material):
    prepared = preparing.prepare(home, recipe(*material, "system=You count."), quiet, predict_cost=False)
    text = prepared.chat_format.tokenizer.decode(prepared.examples[0].input_ids)
    assert text.startswith("<|im_start|>system\nYou count.<|im_end|>")
    assert preparing.reopen(home, prepared.run.name, quiet).chat_format.system == "You count."


@pytest.mark.parametrize(
    ("answer", "thinking", "notice", "learned"),
    [
        ("7", "off", "notice_thinking_off", "7<|im_end|>"),
        (
            "<think>\nthree, four\n</think>\n\n7",
            "auto",
            "notice_thinking_learned",
            "three, four\n</think>\n\n7<|im_end|>",
        ),
    ],
)
def test_a_model_that_can_think_learns_to_where_the_answers_carry_reasoning(
    home, tmp_path, answer, thinking, notice, learned
):
    folder = write_tiny_model(tmp_path / "thinker", "qwen3")
    tiny_tokenizer(CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}").save_pretrained(folder)
    rows = [{"instruction": f"{number}?", "input": "", "output": answer} for number in range(8)]
    wanted = recipe(folder, write_json_rows(tmp_path / "rows.json", rows))
    prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
    assert prepared.plan.thinking == thinking
    assert f"planning.{notice}" in {item.code for item in prepared.plan.notices}
    for ready in (prepared, preparing.reopen(home, prepared.run.name, quiet)):
        assert ready.chat_format.thinking == thinking
        example = ready.examples[0]
        ids = [token for token, wanted in zip(example.input_ids, example.learn, strict=True) if wanted]
        assert ready.chat_format.tokenizer.decode(ids) == learned


def test_without_rows_kept_aside_the_rows_themselves_are_asked(home, material):
    prepared = preparing.prepare(home, recipe(*material, "data.holdout=0"), quiet, predict_cost=False)
    assert not prepared.unseen
    assert len(prepared.probes) == 10
    assert prepared.heldout == []


def test_probes_of_the_person_are_asked_and_known_questions_are_not_called_unseen(
    home, material, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"question": "What is number 99?"}\n', encoding="utf-8")
    prepared = preparing.prepare(home, recipe(*material, "eval.probes=p.jsonl"), quiet, predict_cost=False)
    assert [probe.question for probe in prepared.probes] == ["What is number 99?"]
    assert prepared.unseen
    monkeypatch.chdir(home.root)
    assert preparing.reopen(home, prepared.run.name, quiet).probes == prepared.probes, "found from another folder too"
    known = tmp_path / "known.jsonl"
    question = next(item.question for item in prepared.split.train)
    known.write_text(f'{{"question": "{question}"}}\n', encoding="utf-8")
    assert not preparing.reopen(home, prepared.run.name, quiet, known).unseen


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        (["objective=semi"], RecipeError, "none are named"),
        (["train.max_length=8"], DataError, "longer than max_length = 8"),
        (["eval.probes=nowhere.jsonl"], DataError, "no such file"),
        (["model=/nowhere/at/all"], ModelError, "no such model folder"),
        (["model=nothing-of-this-name"], DanluError, "no model named"),
        (["data.train=nothing"], NotFoundError, "no data set"),
        (["data.train=nothing.json"], DataError, "no such file"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_no_run(home, material, more, kind, says):
    with pytest.raises(kind, match=says):
        preparing.prepare(home, recipe(*material, *more), quiet)
    assert list(home.runs.iterdir()) == []


def test_a_data_set_that_is_gone_is_said_when_resuming(home, material, tmp_path):
    data = write_json_rows(tmp_path / "gone.json", question_rows(6))
    prepared = preparing.prepare(home, recipe(material[0], data), quiet, predict_cost=False)
    data.unlink()
    assert preparing.reopen(home, prepared.run.name, quiet).plan == prepared.plan, "the version does not need the file"
    (home.datasets / "gone").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match="gone"):
        preparing.reopen(home, prepared.run.name, quiet)
    with pytest.raises(NotFoundError):
        preparing.reopen(home, "no-such-run", quiet)
    assert len(Runs(home).list()) == 1

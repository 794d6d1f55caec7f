"""What TensorBoard, wandb, SwanLab and MLflow got of a run, read back from what the real libraries stored here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from danlu.events import Sample, Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.runs import RunFolder
from danlu.jobs.trackers.figures import flat
from danlu.jobs.trackers.run_settings import settings_of
from tests.jobs.homes import never, quiet
from tests.jobs.tracked import (
    SECRET,
    figures,
    first_events,
    interrupt_after_checkpoint,
    last_events,
    level_db,
    prepared_run,
    stop_after,
    swanlab_history,
    told_where,
    warnings,
)

pytestmark = pytest.mark.usefixtures("no_tracker_configured")
SCALARS = {
    "train/loss", "train/learning_rate", "train/grad_norm", "train/epoch", "train/tokens_per_second", "eval/loss",
    "eval/probes_passed", "final/train_loss", "final/heldout_loss", "final/seconds", "final/peak_rss_bytes",
}  # fmt: skip


def read_tensorboard(run: RunFolder) -> EventAccumulator:
    files = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return files.Reload()


def scalars(files: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(item.step, item.value) for item in files.Scalars(tag)] for tag in files.Tags()["scalars"]}


def texts(files: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    name = f"{tag}/text_summary"
    return [(item.step, item.tensor_proto.string_val[0].decode()) for item in files.Tensors(name)]


def test_tensorboard_files_say_what_the_log_says(home, material):
    prepared = prepared_run(home, material)
    pipeline.train(prepared, quiet, never)
    files = read_tensorboard(prepared.run)
    assert scalars(files).keys() == SCALARS
    assert scalars(files) == figures(last_events(prepared.run))
    times = {logged.event.step: logged.time for logged in prepared.run.events() if isinstance(logged.event, Step)}
    assert [item.step for item in files.Scalars("train/loss")] == list(times) == [1, 2, 3, 4, 5, 6]

    asked = [event for event in last_events(prepared.run) if isinstance(event, Sample)]
    shown = texts(files, "probes/1")
    assert [step for step, _ in shown] == [event.step for event in asked] == [0, 3, 6]
    assert prepared.probes[0].question in shown[0][1]
    assert all(event.answers[0].answer.splitlines()[0] in text for event, (_, text) in zip(asked, shown, strict=True))
    [(_, decisions)] = texts(files, "plan/decisions")
    assert all(f"| {item.field} | {item.value} | " in decisions for item in prepared.plan.decisions)
    [(_, settings)] = texts(files, "plan/settings")
    assert "| train.learning_rate | " in settings
    [(_, shown_recipe)] = texts(files, "plan/recipe")
    assert "num_train_epochs: 2" in shown_recipe


def test_a_resumed_run_continues_the_same_tensorboard_folder_and_shows_no_step_twice(home, material):
    prepared = prepared_run(home, material, "eval.every=2")
    interrupt_after_checkpoint(prepared)
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), quiet, never, resume=True)
    starts = [item.event.from_step for item in prepared.run.events() if isinstance(item.event, Started)]
    assert starts == [0, 4]
    assert len(list((prepared.run.path / "tensorboard").iterdir())) == 2
    files = read_tensorboard(prepared.run)
    assert scalars(files) == figures(last_events(prepared.run))
    assert [item.step for item in files.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert len(texts(files, "plan/decisions")) == 1


def test_a_run_begun_again_from_its_first_step_hides_the_first_attempt(home, material):
    prepared = prepared_run(home, material)
    pipeline.train(prepared, stop_after(prepared.run, 2), never)
    (prepared.run.path / "checkpoints").rename(prepared.run.path / "gone")
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), quiet, never, resume=True)
    files = read_tensorboard(prepared.run)
    assert scalars(files) == figures(last_events(prepared.run))
    assert [item.step for item in files.Scalars("eval/loss")] == [0, 3, 6]
    assert len(texts(files, "plan/decisions")) == 1


def wandb_records(folder: Path):
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for content in level_db(path, b":W&B"):
            record = Record()
            record.ParseFromString(content)
            yield record


def wandb_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    shown: dict[str, list[tuple[int, float]]] = {}
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") != "history":
            continue
        row = {
            item.key or "/".join(item.nested_key): float(json.loads(item.value_json)) for item in record.history.item
        }
        step = record.history.step.num
        for name, value in row.items():
            if not name.startswith("_"):
                shown.setdefault(name, []).append((step, value))
    return shown


def test_wandb_gets_the_figures_offline_and_none_of_the_texts(home, material):
    prepared = prepared_run(home, material, "report_to=wandb")
    messages: list = []
    pipeline.train(prepared, messages.append, never)
    assert warnings(prepared.run) == []
    [folder] = (prepared.run.path / "wandb").glob("offline-run-*")
    assert str(folder) in told_where(messages)
    assert wandb_history(prepared.run.path) == figures(first_events(prepared.run))
    [begun, *_] = [item.run for item in wandb_records(prepared.run.path) if item.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name) == ("danlu", prepared.run.name)
    configured = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert configured["model"] == prepared.plan.model
    assert configured["train"]["learning_rate"] == prepared.plan.settings.learning_rate
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix == ".wandb")
    for text in (SECRET, prepared.probes[0].question, str(home.root)):
        assert text.encode() not in stored


def test_a_resumed_run_goes_on_in_the_same_wandb_run_and_tells_no_step_twice(home, material, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "teahouse")
    prepared = prepared_run(home, material, "report_to=[wandb]", "eval.every=2")
    interrupt_after_checkpoint(prepared)
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), quiet, never, resume=True)
    assert wandb_history(prepared.run.path) == figures(first_events(prepared.run))
    runs = [item.run for item in wandb_records(prepared.run.path) if item.WhichOneof("record_type") == "run"]
    assert {run.project for run in runs} == {"teahouse"}
    ids = {path.stem for path in prepared.run.path.glob("wandb/offline-run-*/run-*.wandb")}
    assert len(list(prepared.run.path.glob("wandb/offline-run-*"))) == 2
    assert len(ids) == 1


def test_swanlab_gets_the_figures_offline_and_a_resumed_run_tells_no_step_twice(home, material):
    prepared = prepared_run(home, material, "report_to=swanlab", "eval.every=2")
    messages: list = []
    interrupt_after_checkpoint(prepared)
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), messages.append, never, resume=True)
    assert warnings(prepared.run) == []
    assert swanlab_history(prepared.run.path / "swanlab") == figures(first_events(prepared.run))
    folders = sorted((prepared.run.path / "swanlab").glob("run-*"))
    assert str(folders[1]) in told_where(messages)
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1, "one id for both parts"
    stored = b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*.swanlab"))
    for text in (SECRET, prepared.probes[0].question):
        assert text.encode() not in stored


def mlflow_client(uri: str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.mark.slow
def test_mlflow_gets_the_figures_in_a_store_of_the_home_and_a_resumed_run_tells_no_step_twice(home, material):
    prepared = prepared_run(home, material, "report_to=mlflow", "eval.every=2")
    messages: list = []
    interrupt_after_checkpoint(prepared)
    uri = f"sqlite:///{(home.root / 'mlflow' / 'mlflow.db').as_posix()}"
    client = mlflow_client(uri)
    [run] = client.search_runs([client.get_experiment_by_name("danlu").experiment_id])
    assert (run.info.run_name, run.info.status) == (prepared.run.name, "KILLED")
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), messages.append, never, resume=True)
    assert warnings(prepared.run) == []
    assert uri in told_where(messages)
    [run] = client.search_runs([client.get_experiment_by_name("danlu").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == flat(settings_of(prepared.recipe, prepared.plan))
    assert SECRET not in str(run.data)
    shown = {
        name: [(item.step, item.value) for item in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert shown == figures(first_events(prepared.run))

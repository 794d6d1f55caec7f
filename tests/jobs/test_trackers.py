"""Runs in TensorBoard, wandb, SwanLab and MLflow, read back from what the real libraries stored on this machine."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from danlu.errors import RecipeError
from danlu.events import Event, Sample, Started, Step, Warned
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened, Note
from danlu.jobs.runs import RunFolder
from danlu.jobs.trackers import tracking
from danlu.jobs.trackers.figures import figures_of, flat
from danlu.jobs.trackers.run_settings import settings_of
from danlu.recipe import Recipe
from danlu.recipe_file import dump_recipe
from danlu.settings import Home
from tests.jobs.homes import never, quiet, recipe

SCALARS = {
    "train/loss", "train/learning_rate", "train/grad_norm", "train/epoch", "train/tokens_per_second", "eval/loss",
    "eval/probes_passed", "final/train_loss", "final/heldout_loss", "final/seconds", "final/peak_rss_bytes",
}  # fmt: skip
SECRET = "The oven opens with sesame."


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home on a machine where no tracker is configured."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "SWANLAB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "home").make()


def prepared_run(home, material, *words: str):
    return preparing.prepare(home, recipe(*material, f"system={SECRET}", *words), quiet, predict_cost=False)


def last_events(run: RunFolder) -> list[Event]:
    """Return the events of a run as they count: steps that were done again only the second time."""
    kept: list[Event] = []
    for logged in run.events():
        if isinstance(logged.event, Started):
            start = logged.event.from_step
            kept = [event for event in kept if getattr(event, "step", 0) <= start] if start else []
        kept.append(logged.event)
    return kept


def first_events(run: RunFolder) -> list[Event]:
    """Return the events of a run as they were first told: steps that were done again only the first time."""
    told: dict[tuple[str, int], Event] = {}
    for logged in run.events():
        told.setdefault((logged.event.type, getattr(logged.event, "step", -1)), logged.event)
    return list(told.values())


def figures(events: list[Event]) -> dict[str, list[tuple[int, float]]]:
    """Return what a tracker should show: by name, the steps and their values."""
    shown: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        found = figures_of(event)
        for name, value in found[1].items() if found else ():
            shown.setdefault(name, []).append((found[0], pytest.approx(value, rel=1e-6)))
    return shown


def read_tensorboard(run: RunFolder) -> EventAccumulator:
    files = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return files.Reload()


def scalars(files: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(item.step, item.value) for item in files.Scalars(tag)] for tag in files.Tags()["scalars"]}


def texts(files: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    name = f"{tag}/text_summary"
    return [(item.step, item.tensor_proto.string_val[0].decode()) for item in files.Tensors(name)]


def interrupt_after_checkpoint(prepared) -> str:
    """Train to step 5 and take the checkpoint of that step away: resumed, the run does step 5 again."""
    report = pipeline.train(prepared, stop_after(prepared.run, 5), never)
    (prepared.run.path / "checkpoints" / "step-000005").rename(prepared.run.path / "gone")
    return report.status


def stop_after(run: RunFolder, step: int):
    """Return a receiver of messages that asks the run to stop after a step."""

    def stop(message) -> None:
        if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == step:
            run.stop_file.touch()

    return stop


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


def test_a_tensorboard_folder_that_cannot_be_written_is_one_warning_and_the_run_goes_on(home, material):
    prepared = prepared_run(home, material)
    (prepared.run.path / "tensorboard").write_text("in the way", encoding="utf-8")
    assert pipeline.train(prepared, quiet, never).status == "finished"
    [warning] = warnings(prepared.run)
    assert "tensorboard no longer follows this run, which is not affected (" in warning.message
    assert len([event for event in last_events(prepared.run) if isinstance(event, Step)]) == 6


def warnings(run: RunFolder) -> list[Warned]:
    found = [logged.event for logged in run.events() if isinstance(logged.event, Warned)]
    return [event for event in found if event.code == "jobs.tracker_failed"]


def told_where(messages: list) -> str:
    [note] = [item.text for item in messages if isinstance(item, Note)]
    return note


def level_db(path: Path, head: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, as wandb and SwanLab write it."""
    content = path.read_bytes()
    assert content[:4] == head
    position, parts = 7, b""
    while position < len(content):
        if 32768 - position % 32768 < 7:  # too little is left of the block for a record
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        position += 7
        parts += content[position : position + length]
        position += length
        if kind in {1, 4}:  # whole, or the last part
            yield parts
            parts = b""


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


def swanlab_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    shown: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("run-*/run-*.swanlab")):
        for content in level_db(path, b":SWL"):
            record = Record.FromString(content)
            if record.HasField("scalar"):
                shown.setdefault(record.scalar.key, []).append((record.scalar.step, record.scalar.value.number))
    return shown


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


TRAIN = """
import sys, time
from pathlib import Path
from danlu.events import Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened
from danlu.settings import Home

def tell(message):
    if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == 5:
        print("step 5", flush=True)
        time.sleep(600)

pipeline.train(preparing.reopen(Home(Path(sys.argv[1])), sys.argv[2], lambda _: None), tell, lambda: False)
"""


@pytest.mark.slow
def test_after_a_killed_training_process_the_tracker_has_everything_and_the_resumed_run_only_adds(
    home, material, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWANLAB_LOG_DIR", str(tmp_path / "elsewhere"))
    prepared = prepared_run(home, material, "report_to=swanlab", "eval.every=2")
    command = [sys.executable, "-c", TRAIN, str(home.root), prepared.run.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        assert "step 5" in trainer.stdout.readline()
        trainer.kill()
    assert prepared.run.status() == "interrupted"
    # The follower goes on by itself; the resumed run's own waits for it.
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), quiet, never, resume=True)
    assert [item.event.from_step for item in prepared.run.events() if isinstance(item.event, Started)] == [0, 4]
    assert warnings(prepared.run) == []
    assert swanlab_history(tmp_path / "elsewhere") == figures(first_events(prepared.run))
    assert not (prepared.run.path / "swanlab").exists()


def test_a_tracker_that_failed_is_one_warning_and_a_resumed_run_tells_it_what_it_missed(home, material):
    prepared = prepared_run(home, material, "report_to=swanlab", "eval.every=2")
    (prepared.run.path / "swanlab").write_text("in the way", encoding="utf-8")
    assert interrupt_after_checkpoint(prepared) == "stopped"
    [warning] = warnings(prepared.run)
    assert warning.message.startswith("swanlab no longer follows this run, which is not affected (ValidationError: ")
    assert "exists but is not a directory" in warning.message
    (prepared.run.path / "swanlab").unlink()
    pipeline.train(preparing.reopen(home, prepared.run.name, quiet), quiet, never, resume=True)
    assert len(warnings(prepared.run)) == 1
    assert swanlab_history(prepared.run.path / "swanlab") == figures(first_events(prepared.run))


def test_a_tracker_that_is_killed_is_one_warning_and_the_run_goes_on(home, material):
    prepared = prepared_run(home, material, "report_to=swanlab")

    def kill_at_two(message) -> None:
        if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == 2:
            [follower] = psutil.Process().children()
            follower.kill()
            while follower.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)

    assert pipeline.train(prepared, kill_at_two, never).status == "finished"
    [warning] = warnings(prepared.run)
    assert warning.message.startswith("swanlab no longer follows this run, which is not affected (")
    assert "SIGKILL" in warning.message
    order = [logged.event.type for logged in prepared.run.events()]
    assert order.index("warning") < order.index("finished")
    assert prepared.run.status() == "finished"


def test_a_tracker_that_is_still_sending_is_not_waited_for_without_end(home, material, monkeypatch):
    monkeypatch.setattr(tracking, "_LAST_SECONDS", 0.0)
    prepared = prepared_run(home, material, "report_to=swanlab")
    pipeline.train(prepared, quiet, never)
    [warning] = warnings(prepared.run)
    assert "still sending" in warning.message
    assert prepared.run.status() == "finished"
    assert psutil.Process().children() == []


def test_a_server_that_does_not_answer_is_one_warning(home, material, monkeypatch):
    with socket.socket() as taken:  # bound, not listening: refuses every connection
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        prepared = prepared_run(home, material, "report_to=mlflow")
        assert pipeline.train(prepared, quiet, never).status == "finished"
    [warning] = warnings(prepared.run)
    assert warning.message.startswith("mlflow no longer follows this run, which is not affected (MlflowException: ")
    assert not (home.root / "mlflow").exists()


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(home, material, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python marks a package that cannot be imported
    with pytest.raises(RecipeError) as caught:
        preparing.prepare(home, recipe(*material, "report_to=wandb"), quiet)
    assert caught.value.message("en") == (
        'report_to: wandb is not installed. Install it with: pip install "danlu[trackers]" (or wandb alone), '
        "or leave it out of report_to."
    )
    assert 'pip install "danlu[trackers]"' in caught.value.message("zh")
    assert list(home.runs.iterdir()) == []
    tracking.require_trackers(recipe(*material, "report_to=tensorboard"))


def test_swanlab_without_its_dashboard_is_refused_in_local_mode(home, material, monkeypatch):
    monkeypatch.setitem(sys.modules, "swanboard", None)
    monkeypatch.setenv("SWANLAB_MODE", "local")
    with pytest.raises(RecipeError, match="SWANLAB_MODE=offline"):
        tracking.require_trackers(recipe(*material, "report_to=swanlab"))


def test_the_follower_loads_nothing_that_trains():
    code = "import sys, danlu.jobs.trackers.follower; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("report_to=none", ()),
        ("report_to=[]", ()),
        ("report_to=tensorboard", ()),
        ("report_to=swanlab", ("swanlab",)),
        ("report_to=[mlflow, tensorboard, wandb, mlflow]", ("mlflow", "wandb")),
    ],
)
def test_one_name_or_a_list_is_understood(material, word, names):
    wished = recipe(*material, word)
    assert tracking.wanted(wished) == names
    assert tracking.wanted(load_recipe_text(dump_recipe(wished))) == names


def test_an_unknown_tracker_is_refused_with_those_that_are_known(material):
    with pytest.raises(RecipeError, match="none / tensorboard / wandb / swanlab / mlflow"):
        recipe(*material, "report_to=[comet]")


def load_recipe_text(text: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load(text))


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

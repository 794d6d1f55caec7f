"""Trackers that fail, are killed, are missing or misnamed: one warning or one refusal, and the run is not affected."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from danlu.errors import RecipeError
from danlu.events import Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened
from danlu.jobs.trackers import tracking
from danlu.recipe import Recipe
from danlu.recipe_file import dump_recipe
from tests.jobs.homes import never, quiet, recipe
from tests.jobs.tracked import (
    figures,
    first_events,
    interrupt_after_checkpoint,
    last_events,
    prepared_run,
    swanlab_history,
    warnings,
)

pytestmark = pytest.mark.usefixtures("no_tracker_configured")
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


def test_a_tensorboard_folder_that_cannot_be_written_is_one_warning_and_the_run_goes_on(home, material):
    prepared = prepared_run(home, material)
    (prepared.run.path / "tensorboard").write_text("in the way", encoding="utf-8")
    assert pipeline.train(prepared, quiet, never).status == "finished"
    [warning] = warnings(prepared.run)
    assert "tensorboard no longer follows this run, which is not affected (" in warning.message
    assert len([event for event in last_events(prepared.run) if isinstance(event, Step)]) == 6


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

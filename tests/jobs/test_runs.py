"""Runs as folders: a state that follows what happened, a lock that ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from danlu.errors import ConflictError, NotFoundError, TrainingError
from danlu.events import EventLog, Failed, Finished, Planned, Started, Step, Stopped
from danlu.jobs.runs import RunFolder, Runs
from danlu.settings import Home
from tests.jobs.homes import recipe
from tests.planning.test_plan import plan

PLANNED = Planned(predicted_seconds=1, predicted_peak_rss_bytes=1, steps=3)
STARTED = Started(from_step=0, steps=3, device="cpu", dtype="float32")
STEP = Step(step=1, epoch=1, loss=1, learning_rate=1, grad_norm=1, tokens=1, supervised_tokens=1, seconds=1)
STOPPED = Stopped(step=1)
FAILED = Failed(code="training.diverged", message="no")
FINISHED = Finished(step=3, train_loss=1, heldout_loss=None, seconds=1, peak_rss_bytes=1)


@pytest.fixture
def runs(tmp_path):
    return Runs(Home(tmp_path).make())


def make(runs: Runs, stem="persona") -> RunFolder:
    run = runs.new(stem)
    run.write(recipe(runs.folder, runs.folder / "a.json"), plan())
    return run


@pytest.mark.parametrize(
    ("happened", "status"),
    [
        ([], "planned"),
        ([PLANNED], "planned"),
        ([PLANNED, STARTED], "interrupted"),
        ([PLANNED, STARTED, STEP], "interrupted"),
        ([PLANNED, STARTED, STEP, STOPPED], "stopped"),
        ([PLANNED, STARTED, STEP, FAILED], "failed"),
        ([PLANNED, FAILED], "failed"),
        ([PLANNED, STARTED, STEP, FINISHED], "finished"),
        ([PLANNED, STARTED, STEP, STOPPED, STARTED, STEP], "interrupted"),
        ([PLANNED, STARTED, STEP, FAILED, STARTED, STEP], "interrupted"),
        ([PLANNED, STARTED, STEP, STOPPED, STARTED, STEP, FINISHED], "finished"),
        ([PLANNED, STARTED, STEP, FAILED, STARTED, STEP, STOPPED], "stopped"),
    ],
)
def test_the_state_follows_the_last_thing_that_happened(runs, happened, status):
    run = make(runs)
    with EventLog(run.events_path) as log:
        for event in happened:
            log.append(event)
    assert run.status() == status
    with run.locked():
        assert run.status() == "running"
    assert run.status() == status


def test_what_was_written_is_read_back(runs):
    run = make(runs)
    assert run.plan() == plan()
    assert run.recipe() == recipe(runs.folder, runs.folder / "a.json")
    assert run.report() is None
    assert run.events() == []


def test_a_second_process_is_kept_out_and_a_dead_one_holds_nothing(runs):
    run = make(runs)
    code = (
        "import sys, time; from pathlib import Path; from danlu.jobs.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert run.is_running()
    with pytest.raises(ConflictError) as caught, run.locked():
        pass
    assert caught.value.key == "jobs.run_busy"
    with pytest.raises(ConflictError):
        runs.remove(run.name)
    assert run.path.is_dir()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not run.is_running()
    with run.locked():
        pass


def test_runs_are_listed_newest_first_and_looking_at_them_changes_nothing(runs):
    names = []
    for number in range(3):
        run = make(runs)
        os.utime(run.path / "plan.json", (number, number))
        names.insert(0, run.name)
    assert [run.name for run in runs.list()] == names
    for run in runs.list():
        run.status()
        time.sleep(0.01)
    assert [run.name for run in runs.list()] == names


def test_runs_of_the_same_second_have_names_of_their_own_and_half_made_ones_are_not_listed(runs):
    made = {make(runs).name for _ in range(4)}
    assert len(made) == 4
    runs.new("half")
    assert {run.name for run in runs.list()} == made


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../runs", "a/b", "/"])
def test_an_unknown_run_is_named_with_the_newest_ones(runs, name):
    known = make(runs)
    with pytest.raises(NotFoundError) as caught:
        runs.get(name)
    assert known.name in caught.value.message("en")
    with pytest.raises(NotFoundError):
        runs.remove(name)
    assert known.path.is_dir()


def test_a_removed_run_is_gone(runs):
    run = make(runs)
    runs.remove(run.name)
    assert not run.path.exists()
    assert runs.list() == []


@pytest.mark.parametrize("content", ["", "{", '{"format": 2}'])
def test_a_damaged_plan_is_named(runs, content):
    run = make(runs)
    (run.path / "plan.json").write_text(content, encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        run.plan()
    assert caught.value.where == str(run.path / "plan.json")

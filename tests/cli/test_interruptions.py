"""Ctrl-C, a killed worker, a killed terminal: one clear line, no orphan, and the run goes on to the same bits."""

from __future__ import annotations

import signal
import subprocess
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from danlu.events import Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.runs import RunFolder, Runs
from danlu.settings import Home
from tests.cli.conftest import start
from tests.jobs.homes import recipe, words

LONG = ("train.num_train_epochs=60", "eval.every=100")  # 180 steps
SECONDS = 120


def wait_for_step(home, least: int) -> RunFolder:
    """Wait until the one run of a home has done a step beyond ``least``."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for run in Runs(Home(home)).list():
            if any(isinstance(item.event, Step) and item.event.step > least for item in run.events()):
                return run
        time.sleep(0.02)
    raise AssertionError("the run did not get going")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err
    return process.returncode, out, err


def worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    (worker,) = psutil.Process(process.pid).children()
    return worker


def last_step(run: RunFolder) -> int:
    return max(item.event.step for item in run.events() if isinstance(item.event, Step))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_stopped_by_ctrl_c_and_then_killed_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, material):
    home = tmp_path / "home"

    process = start(home, "train", *words(*material, *LONG), "--json")
    run = wait_for_step(home, 3)
    worker = worker_of(process)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130
    assert out == ""
    assert "Stopping after the step in hand, with a checkpoint" in err
    assert f"danlu runs resume {run.name}" in err
    assert not worker.is_running()
    assert run.status() == "stopped"
    stopped_at = last_step(run)
    assert (run.path / "checkpoints" / f"step-{stopped_at:06d}").is_dir()

    process = start(home, "runs", "resume", run.name, "--json")
    wait_for_step(home, stopped_at + 3)
    worker = worker_of(process)
    worker.kill()
    code, out, err = ended(process)
    assert code == 1
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert "killed by signal SIGKILL" in last
    assert "to continue" in last
    assert run.status() == "interrupted"

    process = start(home, "runs", "resume", run.name, "--json")
    code, out, err = ended(process)
    assert code == 0, err
    assert '"status": "finished"' in out
    assert run.status() == "finished"
    starts = [item.event.from_step for item in run.events() if isinstance(item.event, Started)]
    assert starts == [0, stopped_at, stopped_at]

    whole = preparing.prepare(Home(tmp_path / "other"), recipe(*material, *LONG), lambda _: None, predict_cost=False)
    pipeline.train(whole, lambda _: None, lambda: False)
    one = load_file(whole.run.adapter / "adapter_model.safetensors")
    other = load_file(run.adapter / "adapter_model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_terminal_takes_its_worker_with_it_and_the_lock(tmp_path, material):
    home = tmp_path / "home"
    process = start(home, "train", *words(*material, *LONG))
    run = wait_for_step(home, 1)
    worker = worker_of(process)
    process.kill()
    process.communicate(timeout=SECONDS)
    worker.wait(SECONDS)
    assert run.status() == "interrupted"


def test_ctrl_c_before_the_training_ends_at_once_and_leaves_no_run(tmp_path, material):
    home = tmp_path / "home"
    process = start(home, "train", *words(*material, *LONG))
    end = time.monotonic() + SECONDS
    while not psutil.Process(process.pid).children() and time.monotonic() < end:
        time.sleep(0.01)
    worker = worker_of(process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    assert "Stopped." in err
    assert not worker.is_running()
    assert list((home / "runs").iterdir()) == []

"""Runs of several processes: killed, stopped, resumed, and in the end what one process would have made."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
import torch
from safetensors.torch import load_file

from danlu.errors import MachineError, RecipeError
from danlu.events import Failed, Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.forge_child import Stopping, work
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import Happened, PlanMade, Told, Trained
from danlu.jobs.runs import Runs
from danlu.settings import Home
from tests.jobs.homes import never, quiet, recipe, write_material

# 120 steps: a stop is heard some steps after it was asked for.
LONG = ("train.num_train_epochs=40", "train.learning_rate=1e-4", "eval.every=40", "train.seed=7")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return Home(folder / "home"), *write_material(folder)


def processes_that_train() -> list[psutil.Process]:
    """Return those of this process, in the order of their ranks."""
    found = [
        child for child in psutil.Process().children(recursive=True)
        if "danlu.jobs.rank_child" in " ".join(child.cmdline())
    ]  # fmt: skip
    return sorted(found, key=lambda child: child.cmdline()[-1])


class Heard:
    """What was told, and something that is done once, at a step."""

    def __init__(self, at: int | None = None, do=lambda: None) -> None:
        self.messages: list[Told] = []
        self._at, self._do = at, do

    def __call__(self, message: Told) -> None:
        self.messages.append(message)
        step = message.event.step if isinstance(message, Happened) and isinstance(message.event, Step) else 0
        if self._at is not None and step >= self._at:
            self._at = None
            self._do()

    @property
    def report(self):
        return next(message.report for message in self.messages if isinstance(message, Trained))


def test_a_run_is_stopped_then_killed_and_ends_as_one_process_would(material):
    home, model, rows = material
    stopping = Stopping()
    stopped = Heard(2, stopping.asked.set)
    wanted = recipe(model, rows, *LONG, "resources.devices=2")
    work(Order(task="train", home=home.root, lang="en", recipe=wanted), stopped, stopping)
    assert stopped.report.status == "stopped"
    assert stopped.report.peak_rss_bytes > 700 * 1024**2, "two processes, of which one takes about 500 MiB"
    assert processes_that_train() == []
    (plan,) = (message for message in stopped.messages if isinstance(message, PlanMade))
    assert plan.plan.prediction is None
    assert any(notice.code == "planning.notice_unpredicted" for notice in plan.plan.notices)
    run, done = Runs(home).get(plan.run), stopped.report.steps

    def kill_the_second() -> None:
        os.kill(processes_that_train()[1].pid, signal.SIGKILL)

    again = Order(task="train", home=home.root, lang="en", run=run.name)
    with pytest.raises(MachineError) as caught:
        work(again, Heard(done + 3, kill_the_second), Stopping())
    assert "process 2 of 2" in caught.value.message("en")
    assert "SIGKILL" in caught.value.message("en")
    assert processes_that_train() == []
    assert isinstance(run.events()[-1].event, Failed)

    ended = Heard()
    work(again.model_copy(update={"devices": 1}), ended, Stopping())
    assert ended.report.status == "finished"
    starts = [item.event.from_step for item in run.events() if isinstance(item.event, Started)]
    assert starts[:2] == [0, done]
    assert starts[2] >= done > 0

    alone = preparing.prepare(home, recipe(model, rows, *LONG), quiet, predict_cost=False)
    report = pipeline.train(alone, quiet, never)
    assert ended.report.train_loss == pytest.approx(report.train_loss, rel=1e-4)
    assert ended.report.heldout_loss == pytest.approx(report.heldout_loss, rel=1e-4)
    one, other = (load_file(it.adapter / "adapter_model.safetensors") for it in (alone.run, run))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=5e-4)


def test_more_processes_than_examples_of_a_step_are_refused_before_anything_is_trained(material):
    home, model, rows = material
    before = len(Runs(home).list())
    with pytest.raises(RecipeError) as caught:
        preparing.prepare(home, recipe(model, rows, "resources.devices=4"), quiet, predict_cost=False)
    assert caught.value.key == "planning.devices_idle"
    assert "3 examples" in caught.value.message("en")
    assert len(Runs(home).list()) == before

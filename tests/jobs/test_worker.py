"""The worker process: its messages and errors arrive as they were, and its end is never silent."""

from __future__ import annotations

import inspect
import os
import sys

import psutil
import pytest

from danlu import errors
from danlu.errors import BusyError, DanluError, DataError, MachineError
from danlu.events import Stopped
from danlu.jobs import worker as worker_module
from danlu.jobs.forge_child import Stop, Stopping
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import TOLD, Advance, Happened, Note, Published, Refused, StageBegan, StageEnded
from danlu.jobs.worker import Worker
from danlu.settings import Home
from tests.jobs.homes import recipe

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DanluError)]


@pytest.mark.parametrize(
    "message",
    [
        StageBegan(stage="model", text="x"),
        StageEnded(stage="export", seconds=1.5),
        Note(text="你好\n"),
        Advance(text="x", done=1, total=0),
        Happened(event=Stopped(step=3)),
        Published(version="a"),
    ],
)
def test_a_message_is_one_line_and_comes_back_as_it_was(message):
    line = message.model_dump_json()
    assert "\n" not in line
    assert TOLD.validate_json(line) == message


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_border_as_it_was(kind):
    extra = {"retry_after": 3} if kind is BusyError else {}
    error = kind("data.field_too_long", "a.json", characters=12_345, most=1_000, other=("x",), **extra)
    back = TOLD.validate_json(Refused.of(error).model_dump_json()).to_error()
    assert type(back) is kind
    assert back.message("en") == error.message("en")
    assert back.message("zh") == error.message("zh")
    assert back.exit_code == error.exit_code


def order(tmp_path, **changes) -> Order:
    values = {"task": "plan", "home": Home(tmp_path).make().root, "lang": "en", **changes}
    return Order.model_validate(values)


def fake(monkeypatch, code: str) -> None:
    """Let the worker run a few lines instead of the forge, to end in ways the forge seldom does."""
    monkeypatch.setattr(worker_module, "python_child", lambda _module, path: [sys.executable, "-c", code, path])


def test_the_real_worker_tells_in_the_orders_language_and_its_error_is_raised_here(tmp_path):
    asked = order(tmp_path, lang="zh", recipe=recipe(tmp_path / "m", tmp_path / "none.json"))
    with Worker(asked) as worker:
        told = worker.messages()
        first = next(told)
        with pytest.raises(DataError, match="no such file"):
            next(told)
    assert isinstance(first, StageBegan)
    assert not first.text.isascii()


def test_a_killed_worker_is_an_error_that_says_how_and_where_to_look(tmp_path, monkeypatch):
    whole = Note(text="one").model_dump_json()
    half = Note(text="two").model_dump_json()[:15]
    said = f"{whole}\n{half}"
    fake(monkeypatch, f"import os, sys; sys.stdout.write({said!r}); sys.stdout.flush(); os.kill(os.getpid(), 9)")
    with Worker(order(tmp_path)) as worker:
        told = worker.messages()
        assert next(told) == Note(text="one")
        with pytest.raises(MachineError) as caught:
            next(told)
    message = caught.value.message("en")
    assert "killed by signal SIGKILL" in message
    assert str(worker.log) in message


def test_a_worker_with_a_defect_is_an_error_and_its_traceback_is_in_the_log(tmp_path, monkeypatch):
    fake(monkeypatch, "1 / 0")
    with Worker(order(tmp_path)) as worker, pytest.raises(MachineError, match="exit status 1"):
        list(worker.messages())
    assert "ZeroDivisionError" in worker.log.read_text(encoding="utf-8")


def test_leaving_ends_the_worker_and_its_order_file(tmp_path, monkeypatch):
    fake(
        monkeypatch,
        "import sys, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'print(\'{"kind": "note", "text": "\' + sys.argv[1] + \'"}\', flush=True); time.sleep(600)',
    )
    before = psutil.Process().children()
    with Worker(order(tmp_path)) as worker:
        file = next(worker.messages()).text
        assert os.path.exists(file)  # noqa: PTH110
        (child,) = (process for process in psutil.Process().children() if process not in before)
    assert not child.is_running()
    assert not os.path.exists(file)  # noqa: PTH110


def test_a_worker_that_is_asked_to_stop_may_finish_what_it_saves(tmp_path, monkeypatch):
    fake(
        monkeypatch,
        # The signal may come while the line before is still being printed, where a handler must not print.
        "import os, signal, time\n"
        'def stop(*_): os.write(1, b\'{"kind": "note", "text": "saved"}\\n\'); os._exit(0)\n'
        "signal.signal(signal.SIGTERM, stop)\n"
        'print(\'{"kind": "note", "text": "on"}\', flush=True); time.sleep(600)',
    )
    with Worker(order(tmp_path)) as worker:
        told = worker.messages()
        next(told)
        worker.ask_to_stop()
        assert [message.text for message in told] == ["saved"]


def test_outside_of_training_a_stop_ends_the_work_at_once_and_during_it_only_asks():
    stopping = Stopping()
    with pytest.raises(Stop):
        stopping.ask()
    saving = Stopping()
    saving.saving.set()
    saving.ask()
    assert saving.asked.is_set()
    saving.ask()

"""Child processes end with their parent, when asked, or when killed; how one ended is said in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from danlu.processes import ChildProcess, describe_exit, python_child

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
READY = "import time; from danlu.processes import watch_parent; watch_parent(); print('ready', flush=True); "
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
SECONDS = 30


def started(code: str, log: Path | None = None) -> ChildProcess:
    child = ChildProcess([sys.executable, "-c", code], log=log, stdout=subprocess.PIPE)
    assert child.popen.stdout is not None
    assert child.popen.stdout.readline() == b"ready\n"
    return child


def gone(pid: int) -> bool:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_child_ends_when_its_parent_is_killed():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, subprocess, time; from danlu.processes import ChildProcess\n"
            f"deaf = {DEAF + READY + 'time.sleep(600)'!r}\n"
            "child = ChildProcess([sys.executable, '-c', deaf], stdout=subprocess.PIPE)\n"
            "child.popen.stdout.readline(); print(child.pid, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    assert gone(pid)
    parent.stdout.close()


def test_an_orphan_may_put_its_things_in_order_first(tmp_path):
    note = tmp_path / "note"
    code = (
        "import os, time; from pathlib import Path; from danlu.processes import watch_parent\n"
        f"watch_parent(lambda: (Path({str(note)!r}).write_text('tidy'), os._exit(0)))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    child = started(code)
    child.popen.stdin.close()
    assert child.wait(SECONDS) == 0
    assert note.read_text() == "tidy"
    child.stop()


def test_stop_asks_first():
    child = started(
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); " + READY + "time.sleep(600)"
    )
    assert child.poll() is None
    assert child.stop(grace=SECONDS) == 7
    assert child.ending() == "exit status 7"


def test_stop_kills_what_does_not_listen():
    child = started(DEAF + READY + "time.sleep(600)")
    assert child.stop(grace=0.2) == -signal.SIGKILL
    assert child.ending() == "killed by signal SIGKILL"


def test_kill_takes_the_whole_family():
    code = (
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('ready', flush=True); print(inner.pid, flush=True); time.sleep(600)"
    )
    child = started(code)
    inner = int(child.popen.stdout.readline())
    child.kill()
    assert child.poll() == -signal.SIGKILL
    assert gone(inner)


def test_stopping_and_killing_what_has_ended_does_nothing():
    child = started("print('ready', flush=True)")
    assert child.wait(SECONDS) == 0
    assert child.stop() == 0
    child.kill()
    assert child.poll() == 0


def test_waiting_gives_up_after_its_time():
    child = started(READY + "time.sleep(600)")
    assert child.wait(0.05) is None
    child.kill()


def test_ctrl_c_in_the_terminal_reaches_only_the_parent():
    child = started(READY + "time.sleep(600)")
    assert os.getpgid(child.pid) != os.getpgid(0)
    child.kill()


def test_last_words_go_to_the_log_which_grows(tmp_path):
    log = tmp_path / "logs" / "child.log"
    for word in ("one", "two"):
        child = started(f"import sys; print('ready', flush=True); print({word!r}, file=sys.stderr)", log)
        assert child.wait(SECONDS) == 0
        child.stop()
    assert log.read_text() == "one\ntwo\n"


def test_variables_are_added_to_those_of_the_parent(monkeypatch):
    monkeypatch.setenv("FROM_PARENT", "a")
    code = "import os; print(os.environ['FROM_PARENT'] + os.environ['OWN'], flush=True)"
    child = ChildProcess([sys.executable, "-c", code], stdout=subprocess.PIPE, env={"OWN": "b"})
    assert child.popen.stdout.readline() == b"ab\n"
    child.wait(SECONDS)
    child.stop()


@pytest.mark.parametrize(
    ("status", "lang", "words"),
    [
        (0, "en", "exit status 0"),
        (-9, "en", "killed by signal SIGKILL"),
        (-9, "zh", "被信号 SIGKILL 终止"),
        (-999, "en", "killed by signal 999"),
    ],
)
def test_an_exit_status_is_said_in_words(status, lang, words, monkeypatch):
    monkeypatch.setenv("DANLU_LANG", lang)
    assert describe_exit(status) == words


def test_a_module_is_run_with_this_interpreter():
    assert python_child("danlu.cli.main", "--help") == [sys.executable, "-m", "danlu.cli.main", "--help"]

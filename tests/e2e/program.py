"""The program as users run it: commands, servers and their processes, seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MODEL = "smollm2-135m-instruct"
PATIENCE = 600.0
INTERRUPTED = 130
_DANLU = (sys.executable, "-m", "danlu.cli.main")
_URL = re.compile(r"http://127\.0\.0\.1:\d+")


def environment(home: Path, **changes: str) -> dict[str, str]:
    """The variables of a command that works in ``home``; it computes with one thread unless the test unsets that."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DANLU_")}
    return {**kept, "DANLU_HOME": str(home), "DANLU_LANG": "en", "NO_COLOR": "1", "COLUMNS": "200", **changes}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


def danlu(home: Path, *arguments: object, timeout: float = PATIENCE, **variables: str) -> Ended:
    """Run one command to its end."""
    done = subprocess.run(
        [*_DANLU, *map(str, arguments)],
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Started:
    """A command that runs; what it writes to stderr is collected as it comes."""

    def __init__(self, home: Path, *arguments: object, **variables: str) -> None:
        self.home = home
        self.popen = subprocess.Popen(
            [*_DANLU, *map(str, arguments)],
            env=environment(home, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.err = ""
        self.out = ""
        self._news: queue.Queue[None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stderr", "stdout")
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.popen, name):
            if name == "stderr":
                self.err += line
            else:
                self.out += line
            self._news.put(None)
        self._news.put(None)

    def says(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until ``text`` stands on stderr."""
        end = time.monotonic() + timeout
        while text not in self.err:
            if self.popen.poll() is not None and not any(reader.is_alive() for reader in self._readers):
                raise AssertionError(f"it ended ({self.popen.returncode}) without saying {text!r}:\n{self.err}")
            if time.monotonic() > end:
                raise AssertionError(f"it has not said {text!r}:\n{self.err}")
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=0.2)

    def children(self) -> list[psutil.Process]:
        """Every process below this one."""
        try:
            return psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def child(self, module: str, timeout: float = PATIENCE) -> psutil.Process:
        """Wait for the child that runs a module."""
        return until(lambda: next((p for p in self.children() if module in cmdline(p)), None), timeout)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and for the last line; return the exit code."""
        code = self.popen.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return code

    def end(self) -> None:
        """Make sure that nothing of it runs on after a test."""
        below = self.children()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def started(home: Path, *arguments: object, **variables: str) -> Iterator[Started]:
    """A command for a ``with`` statement; killed at its end if it still runs."""
    process = Started(home, *arguments, **variables)
    try:
        yield process
    finally:
        process.end()


class Server(Started):
    """``danlu up`` on a free port."""

    def __init__(self, home: Path, port: int = 0, **variables: str) -> None:
        super().__init__(home, "up", "--port", port, "--no-open", **variables)
        self.says("Danlu is ready")
        found = _URL.search(self.err)
        assert found is not None, self.err
        self.url = found.group()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str) -> Any:
        """Read JSON from a path."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def until_ready(self, timeout: float = PATIENCE) -> None:
        """Wait until every assistant can answer."""

        def all_ready() -> bool:
            items = self.get("/api/assistants")["items"]
            return bool(items) and all(item["engine"]["state"] == "ready" for item in items)

        until(all_ready, timeout)

    def stop(self) -> None:
        """End it as Ctrl-C does, and insist on a clean end."""
        below = self.children()
        self.signal(signal.SIGINT)
        assert self.wait(60) == 0, self.err
        assert_gone(below)


@contextlib.contextmanager
def serving(home: Path, port: int = 0, **variables: str) -> Iterator[Server]:
    """A server for a ``with`` statement, ended as Ctrl-C ends it unless the test has ended it."""
    server = Server(home, port, **variables)
    try:
        yield server
        if server.popen.poll() is None:
            server.stop()
    finally:
        server.end()


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def assert_gone(processes: list[psutil.Process], timeout: float = 15) -> None:
    """Insist that none of these processes runs any more."""
    _, alive = psutil.wait_procs(processes, timeout)
    assert not alive, [cmdline(process) for process in alive]


def working_in(home: Path) -> list[str]:
    """Command lines of every process whose environment names this home: whoever is left behind is found."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DANLU_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(cmdline(process))
    return found


def until(condition: Callable[[], Any], timeout: float = PATIENCE, every: float = 0.05) -> Any:
    """Wait until ``condition`` is true and return what it gave."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every)
    raise AssertionError("it did not happen in time")


def partial_files(home: Path) -> list[str]:
    """What an interrupted write has left."""
    return [str(path.relative_to(home)) for path in home.rglob("*.part")]


def clone(home: Path, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A home with the same content that a test may change; large files are shared."""

    def link(source: str, copy: str) -> None:
        if os.path.getsize(source) > 10_000_000:  # noqa: PTH202 - shutil gives strings
            os.link(source, copy)
        else:
            shutil.copy2(source, copy)

    def skip(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(folder) == home and name in {*without, ".danlu.lock", ".danlu.pid"}}

    shutil.copytree(home, target, copy_function=link, ignore=skip)
    return target


def put_model(cache: Path, home: Path) -> Path:
    """A fresh home that has the starter model already; its files are shared."""
    folder = home / "models"
    folder.mkdir(parents=True)
    clone(cache / "models" / MODEL, folder / MODEL)
    return home


def one_line(ended: Ended | Started) -> str:
    """The one line on stderr that says what went wrong."""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("Error:")]
    return line


def interrupt(process: Started) -> None:
    """Press Ctrl-C once and insist on an orderly end: nobody left, nothing half-written, no traceback."""
    below = process.children()
    process.signal(signal.SIGINT)
    assert process.wait() == INTERRUPTED, process.err
    assert_gone(below)
    # A child that was being started at that moment is nobody's yet; it ends when it finds its parent gone.
    until(lambda: not working_in(process.home), timeout=15)
    assert partial_files(process.home) == []
    assert "Traceback" not in process.err
    assert process.out == ""


def files_of(home: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (home / folder).iterdir()) if (home / folder).is_dir() else []

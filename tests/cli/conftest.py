"""The command line as people use it: one call, its exit code, what stands on stdout and stderr."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from danlu.cli import forge
from danlu.cli.main import run
from tests.cli.worker_here import WorkerHere
from tests.jobs.homes import words, write_material


@dataclass(frozen=True)
class Called:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Danlu = Callable[..., Called]


@pytest.fixture
def danlu(capfd, monkeypatch, home) -> Iterator[Danlu]:
    """Call a command in this process, with ``home`` as its home."""
    monkeypatch.setenv("DANLU_HOME", str(home))
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def call(*arguments: object, expect: int = 0) -> Called:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        captured = capfd.readouterr()
        assert ended.value.code == expect, captured.err
        return Called(int(ended.value.code), captured.out, captured.err)

    yield call
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture
def worker_here(monkeypatch) -> None:
    """Let commands do their work in this process: for tests that are not about the worker's own."""
    monkeypatch.setattr(forge, "Worker", WorkerHere)


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny model and a file of twelve rows."""
    return write_material(tmp_path_factory.mktemp("material"))


@dataclass(frozen=True)
class TrainedHome:
    """A home with one finished run."""

    path: Path
    run: str
    called: Called


@pytest.fixture(scope="session")
def trained(tmp_path_factory, material) -> TrainedHome:
    """Train once, by the command in a process of its own; tests must not change the run."""
    home = tmp_path_factory.mktemp("trained") / "home"
    done = start(home, "train", *words(*material), "--json")
    out, err = done.communicate(timeout=240)
    assert done.returncode == 0, err
    called = Called(done.returncode, out, err)
    return TrainedHome(home, called.json["run"], called)


def start(home: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "danlu.cli.main", *map(str, arguments)],
        env={**os.environ, "DANLU_HOME": str(home), "DANLU_LANG": "en"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

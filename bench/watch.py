"""Runs a program to its end and measures it from outside: wall time, and memory of its whole process tree.

The same measurement for every program. Not for what a program says of itself.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.1
_TREE_SECONDS = 1.0


@dataclass(frozen=True)
class Watched:
    """A program that has ended.

    Attributes:
        status: exit status.
        seconds: from its start to its end.
        peak_rss_bytes: most resident memory of the program and its descendants together, sampled ten times a second.
        stdout: what it printed.
    """

    status: int
    seconds: float
    peak_rss_bytes: int
    stdout: str


def run_watched(command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path) -> Watched:
    """Run a program and watch it.

    Args:
        command: program and arguments.
        log: file for its stderr; its stdout lies beside it as ``.out``. Both are written anew.
        env: its whole environment.
        cwd: the folder it runs in.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = log.with_suffix(".out")
    with log.open("wb") as errors, output.open("wb") as out:
        start = time.perf_counter()
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env=dict(env),
            cwd=cwd,
        )
        try:
            peak = _watch(child)
        except BaseException:
            _kill_tree(child)
            raise
        seconds = time.perf_counter() - start
    return Watched(child.returncode, seconds, peak, output.read_text(encoding="utf-8", errors="replace"))


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _watch(child: subprocess.Popen[bytes]) -> int:
    """Wait for the end; return the highest sum of resident memory seen.

    The list of descendants is renewed once a second only: finding it walks over all processes of the machine, which
    would take time from the program that is measured.
    """
    peak = 0
    tree: list[psutil.Process] = []
    renewed = 0.0
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            if time.monotonic() - renewed > _TREE_SECONDS:
                root = psutil.Process(child.pid)
                tree = [root, *root.children(recursive=True)]
                renewed = time.monotonic()
        peak = max(peak, sum(_rss(process) for process in tree))
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_SAMPLE_SECONDS)
            return peak


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(child.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    child.kill()
    child.wait()

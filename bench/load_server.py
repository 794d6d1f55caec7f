"""A real server in a child process for load and faults, and what can be seen of it from outside.

Not for asking questions (``load_client``) nor for judging (``serving_load``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_READY_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def engine(self) -> psutil.Process | None:
        """Return the engine's process; None while there is none."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("llamacpp_child" in word for word in child.cmdline()):
                    return child
        return None

    def memory(self) -> tuple[float, float]:
        """Return the resident memory of the server and of its engine, MiB."""
        engine = self.engine()
        own = psutil.Process(self.process.pid).memory_info().rss
        return own / 2**20, (engine.memory_info().rss / 2**20 if engine is not None else 0.0)

    def handles(self) -> int:
        """Return how many files and sockets the server has open."""
        return psutil.Process(self.process.pid).num_fds() if os.name == "posix" else 0


@contextlib.contextmanager
def server(home: Path) -> Iterator[Served]:
    """Start ``danlu up`` over a home and wait until it answers; stop it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "danlu.cli.main", "up", "--no-open", "--port", str(port), "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Served(f"http://127.0.0.1:{port}", home, process)
    try:
        end = time.monotonic() + _READY_SECONDS
        while not _ready(made.url):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("the server did not become ready; look into its log: " + str(home / "logs"))
            time.sleep(0.2)
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
            return int(reply.status) == 200
    except (urllib.error.URLError, OSError):
        return False

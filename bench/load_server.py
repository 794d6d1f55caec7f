"""The server under load: a home with an assistant, ``danlu up`` as a child, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from danlu.chat.assistants import ensure_assistant
from danlu.jobs.pipeline import publish_base
from danlu.models.versions import ModelVersion, list_versions
from danlu.settings import Home
from danlu.store.store import Store

ASSISTANT = "load"
GARBAGE = "load-garbage"
STARTER = "smollm2-135m-instruct"
_MB = 1e6


def prepare(home: Home, garbage_url: str) -> ModelVersion:
    """Put a version with GGUF behind the assistants of the measurement; the starter is exported if there is none.

    Args:
        home: a home; the starter model must have been pulled if it holds no version.
        garbage_url: where the assistant ``GARBAGE`` finds its ``openai:`` engine.

    Raises:
        ValueError: the home has other assistants; ``/health`` would speak of those.
    """
    made = [version for version in list_versions(home.make().versions) if version.export("gguf") is not None]
    version = made[0] if made else publish_base(home, STARTER, lambda _: None)
    with Store.open(home) as store:
        others = [item.name for item in store.assistants.list() if item.name not in {ASSISTANT, GARBAGE}]
        if others:
            raise ValueError(f"{home.root} serves {', '.join(others)}: give the measurement a home of its own")
        # ``/health`` speaks of the assistant made last; ``running`` makes sure that it does.
        ensure_assistant(store, version, GARBAGE, "", (), engine=f"openai:{garbage_url}")
        ensure_assistant(store, version, ASSISTANT, "", ())
    return version


@dataclass(frozen=True)
class Footprint:
    """Resident memory in MB (10^6 bytes) and open files of the server's process and of its engine's."""

    server_mb: float
    engine_mb: float
    server_files: int
    engine_files: int


class Server:
    """A server that runs; its figures are read from outside, as a caller and as the system see it."""

    def __init__(self, url: str, process: psutil.Process, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http
        self._process = process

    def engine(self) -> psutil.Process | None:
        """Return the llama.cpp child; None while there is none."""
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "danlu.serving.llamacpp_child" in child.cmdline():
                    return child
        return None

    def footprint(self) -> Footprint:
        """Return memory and open files; zeros for an engine that is not there."""
        engine = self.engine()
        engine_mb, engine_files = 0.0, 0
        if engine is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                engine_mb, engine_files = engine.memory_info().rss / _MB, _files(engine)
        return Footprint(self._process.memory_info().rss / _MB, engine_mb, _files(self._process), engine_files)

    async def health(self) -> tuple[dict[str, Any], float]:
        """Return what ``/health`` says, and the milliseconds it took."""
        begun = time.perf_counter()
        async with self.http.get(f"{self.url}/health") as response:
            said: dict[str, Any] = await response.json()
        return said, (time.perf_counter() - begun) * 1000

    async def queue(self) -> tuple[int, int]:
        """Return how many requests run and wait."""
        said, _ = await self.health()
        return said["queue"]["running"], said["queue"]["waiting"]

    async def until_idle(self, timeout: float = 120.0) -> float | None:
        """Return the seconds until nothing runs or waits; None when that did not come."""
        begun = time.perf_counter()
        while time.perf_counter() - begun < timeout:
            if await self.queue() == (0, 0):
                return time.perf_counter() - begun
            await asyncio.sleep(0.01)
        return None

    async def until_ready(self, timeout: float = 180.0) -> None:
        """Wait for ``/readyz``.

        Raises:
            TimeoutError: it did not come.
        """
        async with asyncio.timeout(timeout):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.http.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
                    raise TimeoutError("the server has ended; its log is danlu-up.log in the home's logs")
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running(home: Home, http: aiohttp.ClientSession) -> AsyncIterator[Server]:
    """Run ``danlu up`` on a free port until the code inside ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "danlu.cli.main", "up", "--no-open", "--port", str(port), "--home", str(home.root)]
    with (home.logs / "danlu-up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=dict(os.environ))
        server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid), http)
        try:
            await server.until_ready()
            said, _ = await server.health()
            if said["engine"]["kind"] == "openai":
                raise ValueError(f"/health speaks of {GARBAGE}, not of {ASSISTANT}: begin with a new home")
            yield server
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def home_at(folder: Path) -> Home:
    """Return the home in a folder, made if it is not there."""
    return Home(folder.resolve()).make()


def _files(process: psutil.Process) -> int:
    return process.num_fds() if hasattr(process, "num_fds") else process.num_handles()

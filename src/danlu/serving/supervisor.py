"""Keeps an engine's child process alive: starts it, waits until it really answers, restarts it, gives up clearly.

One event loop owns it; the child watches its parent, so it cannot be orphaned. Not for what the engine is asked
(the gateway) nor for engines that run elsewhere (``openai_engine``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE
from typing import IO, Final

from danlu.errors import EngineError
from danlu.hardware import physical_cores
from danlu.i18n import t
from danlu.processes import ChildProcess, python_child
from danlu.serving.announcement import KEY_VARIABLE, UnusableError, read_port
from danlu.serving.engine import (
    EmbeddingRequest,
    Embeddings,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    EngineSpec,
    EngineState,
    Sampling,
    StateListener,
)
from danlu.serving.slots import SlotBook
from danlu.serving.states import StateBox, unavailable
from danlu.serving.wire_client import WireClient, cancel_surely

_log = logging.getLogger(__name__)

_MODULES: Final = {"llamacpp": "danlu.serving.llamacpp_child", "transformers": "danlu.serving.transformers_child"}
_LOG_BYTES: Final = 5_000_000
_LAST_LINES: Final = 3
_POLL_SECONDS: Final = 0.1
_DOUBTS: Final = 2
_WARM_SECONDS: Final = 4.0  # reading the system prompt once a slot; longer would be a long start


@dataclass(frozen=True)
class RestartPolicy:
    """When to try again and when to give up; times in seconds.

    Attributes:
        max_crashes: ends in a row after which the engine is ``failed``.
        first_pause: before the first restart; doubled each time.
        longest_pause: bound of the pause.
        stable_after: an engine that was ready for so long starts with a clean record.
        probe_every: between two looks whether a ready engine still answers.
        probe_timeout: for each look.
        probe_failures: looks in a row without an answer after which the child is killed and restarted.
        load_timeout: for loading the weights.
    """

    max_crashes: int = 4
    first_pause: float = 0.5
    longest_pause: float = 20.0
    stable_after: float = 60.0
    probe_every: float = 5.0
    probe_timeout: float = 5.0
    probe_failures: int = 3
    load_timeout: float = 900.0


class ChildEngine:
    """An engine in a supervised child process.

    Args:
        spec: ``llamacpp`` or ``transformers``.
        policy: restarts and probes.
        command: program and arguments in place of the engine's own module (tests).
        warm_up: gives the token ids that every prompt begins with; they are read before the engine is ready.
    """

    def __init__(
        self,
        spec: EngineSpec,
        policy: RestartPolicy | None = None,
        *,
        command: tuple[str, ...] | None = None,
        warm_up: Callable[[], Sequence[int]] | None = None,
    ) -> None:
        self._warm_up = warm_up
        self.spec = spec
        self._policy = policy or RestartPolicy()
        self._command = command or tuple(_command(spec))
        self._states = StateBox(spec.model_id)
        self._task: asyncio.Task[None] | None = None
        self._child: ChildProcess | None = None
        self._client: WireClient | None = None
        self._log_start = 0
        self._look = asyncio.Event()
        self._slots = SlotBook(spec.slots)
        self._own_log = spec.log is None
        self._log_path = (
            spec.log or Path(tempfile.gettempdir()) / f"danlu-engine-{os.getpid()}-{secrets.token_hex(4)}.log"
        )

    @property
    def state(self) -> EngineState:
        """Return where the engine stands."""
        return self._states.value

    @property
    def pid(self) -> int | None:
        """Return the child's process id; None while there is no child."""
        return self._child.pid if self._child is not None else None

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change of state; returns a function that ends it."""
        return self._states.subscribe(listener)

    def expect(self) -> None:
        """Say ``loading`` before the start, so that callers wait."""
        self._states.set("loading")

    async def start(self) -> None:
        """Begin to start the child; harmless while it runs, a new attempt after ``failed``."""
        if self._task is not None and not self._task.done():
            return
        self._states.set("loading")
        self._task = asyncio.create_task(self._supervise(), name=f"engine {self.spec.model_id}")

    async def stop(self) -> None:
        """End the child; running answers break off."""
        task, self._task = self._task, None
        if task is not None:
            await cancel_surely(task)
        await self._end_child(grace=5.0)
        if self._own_log:
            self._log_path.unlink(missing_ok=True)
        self._states.set("stopped")

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the engine answers; see ``Engine.wait_ready``."""
        await self._states.wait_ready(timeout)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate; see ``Engine.stream``."""
        client, slots = self._client, self._slots
        if client is None:
            raise unavailable(self.spec.model_id, self.state)
        slot = slots.take(request.prompt_ids)
        try:
            async with aclosing(client.stream(replace(request, slot=slot))) as events:
                async for event in events:
                    yield event
        except EngineError as error:
            if self._task is None:
                raise EngineError("serving.engine_stopped", model=self.spec.model_id) from error
            self._suspect(error, client)
            raise
        finally:
            slots.give_back(slot)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts; see ``Engine.embed``."""
        client = self._client
        if client is None:
            raise unavailable(self.spec.model_id, self.state)
        try:
            return await client.embed(request)
        except EngineError as error:
            if self._task is None:
                raise EngineError("serving.engine_stopped", model=self.spec.model_id) from error
            self._suspect(error, client)
            raise

    def _suspect(self, error: EngineError, client: WireClient) -> None:
        """Look at a child at once whose connection broke off, before the next caller runs into the same one."""
        if client is not self._client or self.state.state != "ready":
            return
        if error.key == "serving.engine_gone":
            self._states.set("restarting", error.what())
            self._look.set()
        elif error.key == "serving.engine_garbage":
            self._look.set()

    async def _supervise(self) -> None:
        policy = self._policy
        crashes = restarts = 0
        while True:
            ready_at: float | None = None
            try:
                client = await self._launch()
                self._states.set("ready", restarts=restarts)
                ready_at = time.monotonic()
                reason = await self._until_it_ends(client)
            except UnusableError as error:
                await self._end_child(grace=1.0)
                self._states.set("failed", error.message())
                return
            except EngineError as error:
                reason = error.what()
            self._states.set("restarting", reason)
            crashes = 1 if ready_at is not None and time.monotonic() - ready_at > policy.stable_after else crashes + 1
            await self._end_child(grace=0.0)
            _log.warning("engine of %s: %s", self.spec.model_id, reason)
            if crashes >= policy.max_crashes:
                self._states.set("failed", reason)
                return
            restarts += 1
            self._states.set("restarting", reason, restarts=restarts)
            await asyncio.sleep(min(policy.longest_pause, policy.first_pause * 2 ** (crashes - 1)))

    async def _launch(self) -> WireClient:
        """Start the child and return its client once it has generated a token.

        Raises:
            EngineError: the child could not be started, ended, or was not ready in time.
        """
        key = secrets.token_urlsafe(32)
        environment = {KEY_VARIABLE: key, **_environment(self.spec)}
        try:
            self._log_start = _rotate(self._log_path)
            # Not in a thread: a cancellation while it starts would leave a child that nobody knows of.
            self._child = ChildProcess(self._command, log=self._log_path, stdout=PIPE, env=environment)
        except OSError as error:
            raise EngineError("serving.engine_not_started", reason=error.strerror or str(error)) from error
        try:
            async with asyncio.timeout(self._policy.load_timeout):
                port = await self._port(self._child)
                self._client = WireClient(
                    f"http://127.0.0.1:{port}/v1", key=key, model=self.spec.model_id, wire="completions", own=True
                )
                # A health route that says "ok" proves little (vllm #16259): one real token does.
                await self._prove(self._client)
        except TimeoutError as error:
            raise EngineError("serving.load_timeout", seconds=round(self._policy.load_timeout)) from error
        return self._client

    async def _prove(self, client: WireClient) -> None:
        """Let the child generate a token in each slot, behind what every prompt begins with.

        The first one proves that it works; the others are left to their first callers where that takes long.
        """
        ids = tuple(await asyncio.to_thread(self._warm_up)) if self._warm_up is not None else ()
        self._slots = SlotBook(self.spec.slots)
        probe = EngineRequest(ids or (1,), (), Sampling(max_tokens=1, temperature=0.0, top_p=1.0))
        begun = time.monotonic()
        for slot in range(self.spec.slots if ids else 1):
            async with aclosing(client.stream(replace(probe, slot=slot))) as events:
                async for _ in events:
                    pass
            if (time.monotonic() - begun) * self.spec.slots > _WARM_SECONDS:
                return

    async def _port(self, child: ChildProcess) -> int:
        """Return the port from the child's first line."""
        line = await _first_line(child)
        if not line:
            await asyncio.to_thread(child.wait, 10.0)
            raise self._ended(child)
        return read_port(line)

    async def _until_it_ends(self, client: WireClient) -> str:
        """Return why a ready child is no longer of use."""
        child = self._child
        assert child is not None
        silent, next_probe = 0, time.monotonic() + self._policy.probe_every
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if child.poll() is not None:
                return self._ended(child).what()
            if time.monotonic() < next_probe and not self._look.is_set():
                continue
            self._look.clear()
            silent = 0 if await client.healthy(self._policy.probe_timeout) else silent + 1
            if silent == 0:
                self._states.set("ready")
            elif silent >= _DOUBTS:  # llama.cpp answers this beside its work, so this is not load: say it
                self._states.set("restarting", t("serving.engine_hangs_now"))
            next_probe = time.monotonic() + self._policy.probe_every
            if silent >= self._policy.probe_failures:
                return t("serving.engine_hangs")

    def _ended(self, child: ChildProcess) -> EngineError:
        last = _last_lines(self._log_path, self._log_start)
        return EngineError("serving.engine_ended", how=child.ending(), last=last or "–")

    async def _end_child(self, *, grace: float) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.shield(client.close())
        if self._child is not None:
            await asyncio.shield(asyncio.to_thread(self._child.stop, grace))
            self._child = None


def _command(spec: EngineSpec) -> list[str]:
    arguments = ["--weights", str(spec.weights), "--context", str(spec.context), "--slots", str(spec.slots)]
    arguments += ["--threads", str(spec.threads or physical_cores()), "--model-id", spec.model_id]
    if spec.tokenizer is not None:
        arguments += ["--tokenizer", str(spec.tokenizer)]
    if spec.adapter is not None:
        arguments += ["--adapter", str(spec.adapter)]
    return python_child(_MODULES[spec.kind], *arguments)


def _environment(spec: EngineSpec) -> dict[str, str]:
    threads = str(spec.threads or physical_cores())
    # Waiting threads sleep instead of spinning: on a machine where something else works too, spinning costs far more.
    return {
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


async def _first_line(child: ChildProcess) -> bytes:
    """Read a line without holding one of the event loop's worker threads while the weights load."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()
    stream = child.popen.stdout
    assert stream is not None

    def read(source: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            line = source.readline()
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(line))

    threading.Thread(target=read, args=(stream,), name="engine-port", daemon=True).start()
    return await future


def _rotate(path: Path) -> int:
    """Put a long log aside; return where the next output begins."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    if size < _LOG_BYTES:
        return size
    path.replace(path.with_suffix(path.suffix + ".1"))
    return 0


def _last_lines(path: Path, start: int) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-_LAST_LINES:])

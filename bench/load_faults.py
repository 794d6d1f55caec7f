"""Engines that die, freeze or talk nonsense in mid-stream: what the caller gets, what ``/health`` says, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import psutil

from bench.load_client import Answer, ask, body
from bench.load_figures import Figure
from bench.load_garbage import BAD, GOOD_TEXT, GarbageServer
from bench.load_server import ASSISTANT, GARBAGE, Server
from bench.serving_vs_script import QUESTIONS

# The gateway's stall clock is 60 s (``danlu.serving.gateway.Limits``); the rest is for a busy machine.
_SILENT_LIMIT = 65.0
_BROKEN_LIMIT = 5.0
_BACK_LIMIT = 60.0


async def faults(server: Server, garbage: GarbageServer) -> list[Figure]:
    """Kill and stop the engine's child, then let an ``openai:`` engine misbehave in each way."""
    figures = []
    for name, limit in (("killed", _BROKEN_LIMIT), ("stopped", _SILENT_LIMIT)):
        figures += await _child(server, name, limit)
    for mode in BAD:
        garbage.mode = mode
        answer = await ask(server.http, server.url, body(GARBAGE, "Count.", 16), timeout=180)
        garbage.mode = "good"
        begun = time.perf_counter()
        good = await ask(server.http, server.url, body(GARBAGE, "Count.", 16), timeout=60)
        back = time.perf_counter() - begun if good.done and good.text == GOOD_TEXT else None
        figures += _told(mode, answer, _SILENT_LIMIT if mode == "stops sending" else _BROKEN_LIMIT)
        figures.append(Figure("faults", f"{mode}: next answer right after", back, "s", _BROKEN_LIMIT))
    return figures


async def _child(server: Server, name: str, limit: float) -> list[Figure]:
    right = (await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[1], 16))).text
    engine = server.engine()
    if engine is None:
        raise RuntimeError("the server has no engine's child")
    task = asyncio.create_task(ask(server.http, server.url, body(ASSISTANT, QUESTIONS[0], 2000), timeout=180))
    await asyncio.sleep(1.0)
    if task.done():
        raise RuntimeError(f"the answer ended before the engine was {name}: {task.result().kind}")
    if name == "killed":
        engine.kill()
    else:
        engine.suspend()
    hit, states = time.perf_counter(), list[tuple[float, str]]()
    watcher = asyncio.create_task(_watch(server, hit, states))
    answer = await task
    answer.seconds = time.perf_counter() - hit
    back = await _until_right(server, right, hit)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    if name == "stopped":
        with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor has killed it, as it should
            engine.resume()
    not_ready = [moment for moment, status in states if status != "healthy"]
    print(f"faults: {name}: /health said {_runs(states)}", file=sys.stderr, flush=True)
    return [
        *_told(name, answer, limit),
        Figure("faults", f"{name}: /health stops saying healthy after", min(not_ready, default=None), "s", limit),
        Figure("faults", f"{name}: next answer right after", back, "s", _BACK_LIMIT),
    ]


async def _watch(server: Server, begun: float, states: list[tuple[float, str]]) -> None:
    while True:
        said, _ = await server.health()
        states.append((time.perf_counter() - begun, said["status"]))
        await asyncio.sleep(0.1)


async def _until_right(server: Server, right: str, begun: float) -> float | None:
    while time.perf_counter() - begun < 180:
        answer = await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[1], 16), timeout=60)
        if answer.done and answer.text == right:
            return time.perf_counter() - begun
        await asyncio.sleep(0.25)
    return None


def _told(name: str, answer: Answer, limit: float) -> list[Figure]:
    """A caller is told when an error with words came over the wire, not when the connection just ended."""
    told = bool(answer.error and answer.message) and answer.status in {200, 502, 503, 504}
    print(f"faults: {name}: {answer.kind} after {answer.seconds:.1f} s: {answer.message}", file=sys.stderr, flush=True)
    return [
        Figure("faults", f"{name}: the caller is told why", float(told and not answer.done), "1 = yes", 1, True),
        Figure("faults", f"{name}: the caller's answer ends after", answer.seconds, "s", limit),
    ]


def _runs(states: list[tuple[float, str]]) -> str:
    changes = [item for i, item in enumerate(states) if i == 0 or states[i - 1][1] != item[1]]
    return ", ".join(f"{status} from {moment:.1f} s" for moment, status in changes)

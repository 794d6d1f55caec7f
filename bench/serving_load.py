"""Load and faults: what the gateway costs, and what becomes of callers when many come, leave, or the engine fails.

``python -m bench load --home DIR`` starts the real server over a home that has an assistant on the llamacpp engine, and
drives it over HTTP. Every figure stands beside its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import websockets

from bench.load_client import QUESTIONS, Seen, arrivals, ask, body, health, median, share, slope
from bench.load_faults import faults
from bench.load_server import Served, server
from danlu.models.messages import Message
from danlu.serving.engine import EngineRequest, Sampling
from danlu.serving.served import ServedModel
from danlu.serving.supervisor import ChildEngine
from danlu.serving.wire_format import body_of
from danlu.settings import Home
from danlu.store.store import Store


@dataclass(frozen=True)
class Figure:
    """A measured value beside its limit; ``limit`` None where there is none."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """Return whether the limit holds."""
        if self.limit is None:
            return ""
        return "ok" if self.value <= self.limit else "SHORT"


@dataclass(frozen=True)
class Setting:
    """What every scenario is given."""

    served: Served
    session: aiohttp.ClientSession
    scale: float
    seed: int

    @property
    def chat(self) -> str:
        """Return the address of chat completions."""
        return f"{self.served.url}/v1/chat/completions"


async def overhead(setting: Setting) -> list[Figure]:
    """The same prompts in turns: straight to an engine, and through the gateway."""
    with Store.open(Home(setting.served.home)) as store:
        assistant = store.assistants.list()[0]
    folder = Home(setting.served.home).versions / assistant.version_id
    model = ServedModel.from_version(folder, system=assistant.system or None)
    spec, prompts = model.spec, model.prompts
    assert prompts is not None
    engine = ChildEngine(spec)
    await engine.start()
    await engine.wait_ready(300)
    client = engine._client
    assert client is not None
    figures: list[Figure] = []
    try:
        for callers in (1, 4):
            rates: dict[str, list[float]] = {"engine": [], "gateway": []}
            firsts: dict[str, list[float]] = {"engine": [], "gateway": []}
            for turn in range(max(3, round(16 * setting.scale))):
                asked = [f"{QUESTIONS[(turn + i) % len(QUESTIONS)]} ({turn}.{i})" for i in range(callers)]

                async def straight(question: str) -> Seen:
                    messages = model.request((Message("user", question),)).messages
                    request = EngineRequest(tuple(prompts.prompt_ids(messages)), (), Sampling(64, 0.0, 1.0))
                    sent = body_of(request, spec.model_id, "completions", own=True)
                    key = {"Authorization": str(client._session.headers["Authorization"])}
                    return await ask(setting.session, f"{client.base_url}/completions", sent, headers=key)

                async def through(question: str) -> Seen:
                    sent = body(question, max_tokens=64) | {"top_p": 1.0, "repetition_penalty": 1.0}
                    return await ask(setting.session, setting.chat, sent)

                # The same moments for both: callers who come in one instant would be a batch for the engine alone.
                moments = arrivals(callers, 4.0, setting.seed + turn)

                async def at(moment: float, way: Callable[[str], Awaitable[Seen]], question: str) -> Seen:
                    await asyncio.sleep(moment)
                    return await way(question)

                for name, way in (("engine", straight), ("gateway", through)):
                    begun = time.perf_counter()
                    came = zip(moments, asked, strict=True)
                    seen = await asyncio.gather(*(at(moment, way, question) for moment, question in came))
                    wall = time.perf_counter() - begun
                    rate = seen[0].rate if callers == 1 else sum(len(one.pieces) for one in seen) / wall
                    rates[name].append(rate or math.nan)
                    firsts[name] += [one.first for one in seen if one.first is not None]
            lost = 100 * (1 - median(rates["gateway"]) / median(rates["engine"]))
            later = 1000 * (median(firsts["gateway"]) - median(firsts["engine"]))
            figures += [
                Figure(f"engine alone, {callers} callers", median(rates["engine"]), "tokens/s"),
                Figure(f"through the gateway, {callers} callers", median(rates["gateway"]), "tokens/s"),
                Figure(f"lost through the gateway, {callers} callers", lost, "%", 3.0),
                Figure(f"first token later, {callers} callers", later, "ms", 5.0),
            ]
    finally:
        await engine.stop()
    return figures


async def idle(setting: Setting) -> list[Figure]:
    """Two hundred connections on which nothing happens."""
    before = setting.served.memory()[0]
    url = setting.served.url.replace("http", "ws") + "/ws/answers"
    sockets = [await websockets.connect(url) for _ in range(200)]
    await asyncio.sleep(2)
    after = setting.served.memory()[0]
    await asyncio.gather(*(socket.close() for socket in sockets))
    return [Figure("200 idle streams", after - before, "MiB", 100.0)]


async def loaded_health(setting: Setting) -> list[Figure]:
    """``/health`` while every slot works and the queue is full."""
    times: list[tuple[float, str]] = []
    watcher = asyncio.create_task(health(setting.session, setting.served.url, times))
    await asyncio.gather(
        *(ask(setting.session, setting.chat, body(QUESTIONS[i % 8], max_tokens=48)) for i in range(20))
    )
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    took = [milliseconds for milliseconds, _ in times]
    return [
        Figure("/health under full load, p50", share(took, 0.5), "ms"),
        Figure("/health under full load, p99", share(took, 0.99), "ms", 50.0),
    ]


async def burst(setting: Setting) -> list[Figure]:
    """Sixty-four callers in the same moment."""
    asked = [body(f"{QUESTIONS[i % 8]} ({i})", max_tokens=24) for i in range(64)]
    seen = await asyncio.gather(*(ask(setting.session, setting.chat, one) for one in asked))
    answered = [one for one in seen if one.status == 200 and one.error is None]
    refused = [one for one in seen if one.status == 503]
    firsts = [one.first for one in answered if one.first is not None]
    return [
        Figure("64 at once: answered", len(answered), "callers"),
        Figure("64 at once: 503", len(refused), "callers"),
        Figure("64 at once: neither", 64 - len(answered) - len(refused), "callers", 0),
        Figure("503 after, slowest", 1000 * max((one.seconds for one in refused), default=math.nan), "ms", 1000.0),
        Figure("first token, shortest wait", min(firsts, default=math.nan), "s"),
        Figure("first token, longest wait", max(firsts, default=math.nan), "s"),
        Figure("all served within", max((one.seconds for one in answered), default=math.nan), "s"),
    ]


async def leavers(setting: Setting) -> list[Figure]:
    """Callers who leave at random moments, many before the first token."""
    greedy = [body(question, max_tokens=24) for question in QUESTIONS[:5]]
    before = [(await ask(setting.session, setting.chat, one)).text for one in greedy]
    memory, handles = setting.served.memory(), setting.served.handles()
    count = max(40, round(1000 * setting.scale))
    chance = random.Random(setting.seed)
    moments, patience = arrivals(count, 20.0, setting.seed), [chance.uniform(0.0, 1.5) for _ in range(count)]

    async def one(moment: float, leave_after: float, number: int) -> Seen:
        await asyncio.sleep(moment)
        return await ask(
            setting.session, setting.chat, body(f"{QUESTIONS[number % 8]} {number}", max_tokens=400),
            leave_after=leave_after,
        )  # fmt: skip

    seen = await asyncio.gather(*(one(*pair, i) for i, pair in enumerate(zip(moments, patience, strict=True))))
    last = time.perf_counter()
    while True:
        async with setting.session.get(f"{setting.served.url}/health") as reply:
            queue = (await reply.json())["queue"]
        if queue["running"] == queue["waiting"] == 0:
            break
        await asyncio.sleep(0.01)
    free = time.perf_counter() - last
    after = [(await ask(setting.session, setting.chat, one)).text for one in greedy]
    later, open_now = setting.served.memory(), setting.served.handles()
    return [
        Figure("callers who left", sum(one.left for one in seen), "callers"),
        Figure("of them before the first token", sum(one.left and one.first is None for one in seen), "callers"),
        Figure("refused with 503", sum(one.status == 503 for one in seen), "callers"),
        Figure("slots free after the last one", 1000 * free, "ms", 500.0),
        Figure("answers that changed", sum(a != b for a, b in zip(before, after, strict=True)), "of 5", 0),
        Figure("server's memory, more", later[0] - memory[0], "MiB", 30.0),
        Figure("engine's memory, more", later[1] - memory[1], "MiB"),
        Figure("open files and sockets, more", open_now - handles, "", 5),
    ]


async def mixed(setting: Setting) -> list[Figure]:
    """An hour of callers who ask, leave, and come too many at a time."""
    seconds = 3600 * setting.scale
    per_second = 1.5
    chance = random.Random(setting.seed + 1)
    moments = arrivals(max(10, round(seconds * per_second)), per_second, setting.seed)
    points: list[tuple[float, float, float]] = []
    begun = time.perf_counter()

    async def watch() -> None:
        while True:
            points.append(((time.perf_counter() - begun) / 3600, *setting.served.memory()))
            await asyncio.sleep(max(1.0, seconds / 200))

    async def one(moment: float, number: int) -> Seen:
        await asyncio.sleep(moment)
        sent = body(f"{chance.choice(QUESTIONS)} {number}", max_tokens=chance.choice((8, 24, 96)), temperature=0.7)
        return await ask(
            setting.session, setting.chat, sent, leave_after=chance.uniform(0.1, 2.0) if number % 5 == 0 else None
        )

    watcher = asyncio.create_task(watch())
    seen = await asyncio.gather(*(one(moment, i) for i, moment in enumerate(moments)))
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    warm = points[len(points) // 4 :]
    firsts = [one.first for one in seen if one.first is not None]
    errors = Counter(one.error for one in seen if one.error is not None)
    print("errors:", dict(errors) or "none", file=sys.stderr)
    return [
        Figure("callers", len(seen), "callers"),
        Figure("over", time.perf_counter() - begun, "s"),
        Figure("first token, p50", share(firsts, 0.5), "s"),
        Figure("first token, p99", share(firsts, 0.99), "s"),
        Figure("errors beside 503", sum(n for key, n in errors.items() if key != "overloaded"), "callers", 0),
        Figure("server's memory at the end", points[-1][1], "MiB"),
        Figure("server's memory grew from a quarter on", warm[-1][1] - warm[0][1], "MiB", 20.0),
        Figure("server's memory, slope", slope([(hour, own) for hour, own, _ in warm]), "MiB/h"),
        Figure("engine's memory grew from a quarter on", warm[-1][2] - warm[0][2], "MiB", 50.0),
    ]


async def broken(setting: Setting) -> list[Figure]:
    """The engine killed, stopped, and answering garbage."""
    return [Figure(*one) for one in await faults(setting.served, setting.session)]


SCENARIOS: dict[str, Callable[[Setting], Awaitable[list[Figure]]]] = {
    "overhead": overhead,
    "idle": idle,
    "health": loaded_health,
    "burst": burst,
    "leavers": leavers,
    "faults": broken,
    "mixed": mixed,
}


async def _run(arguments: argparse.Namespace) -> dict[str, list[Figure]]:
    made: dict[str, list[Figure]] = {}
    with server(arguments.home) as served:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            setting = Setting(served, session, arguments.scale, arguments.seed)
            await ask(session, setting.chat, body("Hello.", max_tokens=4))
            for name in arguments.scenario:
                print(f"… {name}", file=sys.stderr, flush=True)
                made[name] = await SCENARIOS[name](setting)
                for figure in made[name]:
                    limit = "" if figure.limit is None else f"(at most {figure.limit:g})"
                    print(
                        f"{figure.name:44}{figure.value:>12.2f} {figure.unit:10}{limit:18}{figure.verdict}", flush=True
                    )
    return made


def main(words: list[str]) -> int:
    """Run the scenarios that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench load", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a home with an assistant that has a GGUF")
    parser.add_argument(
        "--scenario", type=lambda text: text.split(","), default=list(SCENARIOS), help="some, by commas"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="1 is a thousand leavers and an hour of mixed load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args(words)
    unknown = set(arguments.scenario) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; choose among {', '.join(SCENARIOS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    made = asyncio.run(_run(arguments))
    if arguments.json is not None:
        values = {name: [asdict(one) | {"verdict": one.verdict} for one in figures] for name, figures in made.items()}
        arguments.json.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return 1 if any(one.verdict == "SHORT" for figures in made.values() for one in figures) else 0

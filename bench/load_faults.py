"""Engines that fail while a caller is being answered: killed, stopped, or speaking garbage."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp import web

from bench.load_client import QUESTIONS, ask, body, health
from bench.load_server import Served
from danlu.settings import Home
from danlu.store.store import Store

FigureParts = tuple[str, float, str, float | None]
_NAME: Final = "bench-broken"
_STALL: Final = 60.0  # seconds without a sign of life after which the gateway gives up


async def faults(served: Served, session: aiohttp.ClientSession) -> list[FigureParts]:
    """Return what callers saw of each fault, as name, value, unit and limit."""
    chat = f"{served.url}/v1/chat/completions"
    made: list[FigureParts] = []
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        expected = (await ask(session, chat, body(QUESTIONS[0], max_tokens=24))).text
        engine = served.engine()
        assert engine is not None, "the llamacpp engine runs"
        states: list[tuple[float, str]] = []
        asking = asyncio.create_task(ask(session, chat, body(QUESTIONS[1], max_tokens=1500)))
        await asyncio.sleep(1.5)
        watcher = asyncio.create_task(health(session, served.url, states, 0.2))
        begun = time.perf_counter()
        engine.send_signal(number)
        seen = await asking
        told = time.perf_counter() - begun
        back = await _until_right(session, chat, expected, begun)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        made += [
            (f"engine {name}: caller told after", told, "s", _STALL),
            (f"engine {name}: told nothing", float(seen.error is None), "callers", 0),
            (f"engine {name}: right answers again after", back, "s", None),
            (f"engine {name}: /health never said so", float(all(state == "healthy" for _, state in states)), "", 0),
        ]
    async with _broken_server() as (url, kinds):
        with Store.open(Home(served.home)) as store:
            base = store.assistants.list()[0]
            store.assistants.put(
                _NAME, version_id=base.version_id, engine=f"openai:{url}", system="", greeting="", suggestions=(),
                generation=base.generation,
            )  # fmt: skip
        try:
            await _served(session, served.url)
            for kind in kinds:
                seen = await ask(session, chat, body(kind, max_tokens=8, model=_NAME))
                made += [
                    (f"garbage ({kind}): caller told after", seen.seconds, "s", _STALL + 5),
                    (f"garbage ({kind}): told nothing", float(seen.error is None), "callers", 0),
                ]
        finally:
            with Store.open(Home(served.home)) as store:
                store.assistants.remove(_NAME)
    return made


async def _until_right(session: aiohttp.ClientSession, chat: str, expected: str, begun: float) -> float:
    while True:
        seen = await ask(session, chat, body(QUESTIONS[0], max_tokens=24))
        if seen.text == expected:
            return time.perf_counter() - begun
        await asyncio.sleep(0.2)


async def _served(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        async with session.get(f"{url}/v1/models") as reply:
            if any(model["id"] == _NAME for model in (await reply.json())["data"]):
                return
        await asyncio.sleep(0.2)


Sender = Callable[[web.StreamResponse], Awaitable[None]]


async def _cut(_: web.StreamResponse) -> None:
    raise ConnectionResetError


async def _bytes(reply: web.StreamResponse) -> None:
    await reply.write(b"data: \xff\xfe\xfd\n\n")


async def _not_json(reply: web.StreamResponse) -> None:
    await reply.write(b"data: {nonsense\n\n")


async def _endless_line(reply: web.StreamResponse) -> None:
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            await reply.write(b"x" * 65536)


async def _silence(_: web.StreamResponse) -> None:
    await asyncio.sleep(3600)


_KINDS: Final[dict[str, Sender]] = {
    "cut off": _cut,
    "not UTF-8": _bytes,
    "not JSON": _not_json,
    "an endless line": _endless_line,
    "silence": _silence,
}


@asynccontextmanager
async def _broken_server() -> AsyncIterator[tuple[str, tuple[str, ...]]]:
    """A server that begins an answer well and then does what the question says."""

    async def chat(request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["messages"][-1]["content"]
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await reply.write(b'data: {"choices": [{"index": 0, "delta": {"content": "Well"}}]}\n\n')
        sender = _KINDS.get(asked)
        if sender is None:
            await reply.write(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n')
        else:
            await sender(reply)
        return reply

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/v1", tuple(_KINDS)
    finally:
        await runner.cleanup()

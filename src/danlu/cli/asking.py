"""Starts the real server for one question over HTTP; for the end of ``danlu quickstart --no-serve``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from danlu.errors import EngineError
from danlu.server.run import serve
from danlu.server.services import Services
from danlu.settings import Settings

_ANSWER_SECONDS = 300.0


async def ask_served(settings: Settings, question: str) -> dict[str, Any]:
    """Start the real server on a free port, ask it one question over HTTP, and stop it."""
    stop = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    server = asyncio.create_task(serve(Services(settings), "127.0.0.1", 0, address.set_result, stop=stop))
    stopped = asyncio.create_task(stop.wait())
    waiting: list[asyncio.Future[Any]] = [server, address]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            server.result()
            raise KeyboardInterrupt  # it ended without an error: by Ctrl-C
        asking = asyncio.create_task(_ask(address.result(), question, began))
        await asyncio.wait([asking, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            raise KeyboardInterrupt  # Ctrl-C reaches the server, which sets ``stop``
        return asking.result()
    finally:
        stop.set()
        await server


async def _ask(url: str, question: str, began: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await _until_healthy(session, url)
        ready = time.perf_counter()
        async with session.get(f"{url}/answer", params={"prompt": question, "temperature": "0"}) as response:
            body = await response.json()
            if response.status != 200:
                raise EngineError("cli.answer_failed", url, reason=str(body.get("detail", response.status)))
    return {
        "url": url,
        "answer": str(body["generated_text"]),
        "engine_ready": ready - began,
        "first_answer": time.perf_counter() - ready,
    }


async def _until_healthy(session: aiohttp.ClientSession, url: str) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        async with session.get(f"{url}/health") as response:
            health = await response.json()
        if health["status"] == "healthy":
            return
        if health["status"] == "degraded" or time.monotonic() > deadline:
            raise EngineError("cli.engine_not_ready", url, state=str(health["status"]))
        await asyncio.sleep(0.1)

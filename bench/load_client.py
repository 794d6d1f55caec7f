"""Callers: one streamed question, many at random moments, and the arithmetic of what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

QUESTIONS = (
    "Tell me about the history of Paris.",
    "How do I bake bread at home?",
    "Explain why the sky is blue.",
    "Write a short story about a cat.",
    "What should I see in Rome?",
    "Describe the life of a bee.",
    "How does a steam engine work?",
    "Give me advice for learning the piano.",
)


@dataclass
class Seen:
    """What a caller saw; times in seconds from the moment of asking.

    Attributes:
        status: of HTTP; 0 when the connection broke.
        first: until the first text; None without any.
        seconds: until the end.
        pieces: moments at which text came.
        text: of the answer.
        error: key of the error; None without one.
        left: the caller went away by itself.
    """

    status: int = 0
    first: float | None = None
    seconds: float = 0.0
    pieces: list[float] = field(default_factory=list)
    text: str = ""
    error: str | None = None
    left: bool = False

    @property
    def rate(self) -> float | None:
        """Return pieces a second after the first."""
        span = self.pieces[-1] - self.pieces[0] if len(self.pieces) > 1 else 0.0
        return (len(self.pieces) - 1) / span if span > 0 else None


def body(question: str, *, max_tokens: int, temperature: float = 0.0, model: str | None = None) -> dict[str, Any]:
    """Return a streamed question in OpenAI's format."""
    return {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
        **({"model": model} if model else {}),
    }


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    sent: dict[str, Any],
    *,
    leave_after: float | None = None,
    headers: dict[str, str] | None = None,
) -> Seen:
    """Ask, read to the end or leave after some seconds, and return what was seen."""
    seen, begun = Seen(), time.perf_counter()
    try:
        async with asyncio.timeout(leave_after), session.post(url, json=sent, headers=headers) as reply:
            seen.status = reply.status
            if reply.status != 200:
                seen.error = _code(await reply.text())
            else:
                await _read(reply, seen, begun)
    except TimeoutError:
        seen.left = True
    except aiohttp.ClientError as error:
        seen.error = type(error).__name__
    seen.seconds = time.perf_counter() - begun
    return seen


async def _read(reply: aiohttp.ClientResponse, seen: Seen, begun: float) -> None:
    async for line in reply.content:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        value = json.loads(line[6:])
        if "error" in value:
            seen.error = value["error"]["code"]
            return
        for choice in value.get("choices") or ():
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            if text:
                moment = time.perf_counter() - begun
                seen.first = moment if seen.first is None else seen.first
                seen.pieces.append(moment)
                seen.text += text


def _code(text: str) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["code"])
    return "?"


def arrivals(count: int, per_second: float, seed: int) -> list[float]:
    """Return the moments at which callers come, seconds from the beginning: a Poisson process.

    Callers come whether or not those before them have been answered ("open loop"): a server that is slow is not asked
    more slowly.
    """
    chance = random.Random(seed)
    moment, made = 0.0, []
    for _ in range(count):
        moment += chance.expovariate(per_second)
        made.append(moment)
    return made


def share(values: Sequence[float], part: float) -> float:
    """Return the value that ``part`` of the values do not exceed; NaN for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def median(values: Sequence[float]) -> float:
    """Return the median; NaN for none."""
    return statistics.median(values) if values else float("nan")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second value rises for each unit of the first, by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


async def health(session: aiohttp.ClientSession, url: str, into: list[tuple[float, str]], every: float = 0.05) -> None:
    """Ask for ``/health`` again and again; note how long each took in milliseconds, and what it said."""
    while True:
        begun = time.perf_counter()
        async with session.get(f"{url}/health") as reply:
            value = await reply.json()
        into.append(((time.perf_counter() - begun) * 1000, value["status"]))
        await asyncio.sleep(every)

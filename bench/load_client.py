"""A caller of ``/v1/chat/completions`` that notes what happened and when. Not for choosing what to ask."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Answer:
    """What became of one request; moments in seconds from the request's start.

    Attributes:
        status: HTTP status; 0 when the connection broke before one came.
        text: the answer's text so far.
        pieces: moments at which text came.
        seconds: from the request to its end.
        error: the error's type or the exception's name; empty for none.
        message: the error in words.
        done: the stream ended with ``[DONE]``.
        tokens: completion tokens that the server reported.
        started: when the stream said that the engine has begun.
    """

    status: int = 0
    text: str = ""
    pieces: list[float] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    message: str = ""
    done: bool = False
    tokens: int = 0
    started: float | None = None

    @property
    def first(self) -> float | None:
        """Return seconds to the first text; None when none came."""
        return self.pieces[0] if self.pieces else None

    @property
    def kind(self) -> str:
        """Return ``answered``, ``busy`` (503), the error's kind, or ``cut off`` for an end without a word."""
        if self.done:
            return "answered"
        if self.status == 503:
            return "busy"
        return self.error or "cut off"


def session() -> aiohttp.ClientSession:
    """Return a session without bounds on connections and time of its own; each request opens a connection.

    A kept connection may be closed by the server at the moment it is used again, which is no fault of the server's.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=aiohttp.ClientTimeout(total=None)
    )


def body(model: str, question: str, max_tokens: int) -> dict[str, object]:
    """Return a greedy streaming request."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def ask(http: aiohttp.ClientSession, url: str, request: dict[str, object], timeout: float = 600.0) -> Answer:
    """Send a request and read its stream to the end; errors stand in the answer. Cancel the task to leave."""
    answer, begun = Answer(), time.perf_counter()
    try:
        async with asyncio.timeout(timeout), http.post(f"{url}/v1/chat/completions", json=request) as response:
            answer.status = response.status
            if response.status != 200:
                _error(answer, json.loads(await response.read()))
            else:
                async for line in response.content:
                    _line(answer, line.decode().strip(), time.perf_counter() - begun)
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, TimeoutError, ValueError) as error:
        answer.error, answer.message = type(error).__name__, str(error)
    answer.seconds = time.perf_counter() - begun
    return answer


def _line(answer: Answer, line: str, moment: float) -> None:
    if line == ": started":
        answer.started = moment
    if not line.startswith("data:"):
        return
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        answer.done = True
        return
    event = json.loads(data)
    if "error" in event:
        _error(answer, event)
        return
    answer.tokens = (event.get("usage") or {}).get("completion_tokens", answer.tokens)
    for choice in event.get("choices", ()):
        content = choice["delta"].get("content")
        if content:
            answer.text += content
            answer.pieces.append(moment)


def _error(answer: Answer, event: dict[str, dict[str, str]]) -> None:
    answer.error = str(event["error"].get("code") or event["error"].get("type") or "error")
    answer.message = str(event["error"].get("message", ""))

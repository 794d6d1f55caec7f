"""Speaks OpenAI's wire format to an engine over HTTP: one streamed generation, one health probe.

The same client serves our own child processes and foreign servers. No redirects, no proxies from the environment,
bounded lines. Not for retries: a generation is never repeated behind the caller's back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from danlu.errors import EngineError, EngineTimeoutError
from danlu.serving.engine import EngineFinish, EnginePiece, EngineRequest, FinishReason, Wire

_PATIENCE = 0.1
_LINE_BYTES = 1 << 20  # one event of a stream is far smaller; more means that it is not an event stream


class WireClient:
    """A client of one server.

    Args:
        base_url: ends in ``/v1``.
        key: sent as bearer token; None for none.
        model: the name the server knows the model by.
        wire: ``completions`` (token ids) or ``chat`` (messages).
        own: the server is one of our children, which understand ``return_progress`` and ``timings_per_token``.
    """

    def __init__(self, base_url: str, *, key: str | None, model: str, wire: Wire, own: bool) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.wire = wire
        self.own = own
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # The gateway admits callers; a limit here would be a second, hidden queue.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=_LINE_BYTES,
        )
        self._open: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Close every connection; running generations end with an ``EngineError``."""
        for response in self._open:
            # aiohttp drops the connection without a word to who reads from it: they would wait for ever.
            response.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))
        await self._session.close()

    async def healthy(self, timeout: float) -> bool:
        """Return whether the server answers that it is ready within ``timeout`` seconds."""
        url = self.base_url.removesuffix("/v1") + "/health" if self.own else f"{self.base_url}/models"
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.get(url, timeout=limit, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate; leaving the generator closes the connection, which stops the server's work.

        Raises:
            EngineError: the server refused, went away, or did not speak the wire format.
        """
        path = "/completions" if self.wire == "completions" else "/chat/completions"
        try:
            response = await self._session.post(self.base_url + path, json=self._body(request), allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError("serving.engine_gone", reason=str(error) or type(error).__name__) from error
        self._open.add(response)
        try:
            if response.status != 200:
                raise EngineError("serving.engine_refused", status=response.status, reason=await _reason(response))
            async with aclosing(self._events(response)) as events:
                async for event in events:
                    yield event
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineError("serving.engine_gone", reason=str(error) or type(error).__name__) from error
        finally:
            self._open.discard(response)
            response.close()

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        reason: FinishReason | None = None
        counted, usage = 0, _Usage()
        async for data in _sse(response):
            if data == "[DONE]":
                break
            chunk = _json(data)
            if "error" in chunk:
                raise EngineError("serving.engine_refused", status=200, reason=_error_text(chunk["error"]))
            usage.read(chunk)
            choice = next(iter(chunk.get("choices") or ()), None)
            if choice is None:
                continue
            text, reasoning = _texts(choice, self.wire)
            total = chunk.get("timings", {}).get("predicted_n") if self.own else None
            tokens = max(0, int(total) - counted) if total is not None else int(bool(text or reasoning))
            counted += tokens
            if choice.get("finish_reason") is not None:
                reason = "length" if choice["finish_reason"] == "length" else "stop"
            yield EnginePiece(text, reasoning, tokens)
        if reason is None:
            raise EngineError("serving.engine_gone", reason="the stream ended in the middle of the answer")
        yield EngineFinish(reason, usage.prompt, usage.completion, usage.cached)

    def _body(self, request: EngineRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self.wire == "completions":
            body["prompt"] = list(request.prompt_ids)
        else:
            body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        # Outside of OpenAI's own set: strict servers refuse fields they do not know, so only those asked for are sent.
        if self.own or sampling.top_k:
            body["top_k"] = sampling.top_k
        if self.own or sampling.min_p:
            body["min_p"] = sampling.min_p
        if self.own:
            # llama.cpp's name for it; its default window of 64 tokens would differ from transformers' whole text.
            window = len(request.prompt_ids) + sampling.max_tokens
            body |= {"repeat_penalty": sampling.repetition_penalty, "repeat_last_n": window, "cache_prompt": True}
            body |= {"return_progress": True, "timings_per_token": True}
        elif sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        if request.stop_ids and self.wire == "completions":
            body["stop_token_ids"] = list(request.stop_ids)
        return body


class _Usage:
    """Token counts, as far as the server tells them."""

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.completion: int | None = None
        self.cached: int | None = None

    def read(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.prompt = usage.get("prompt_tokens", self.prompt)
            self.completion = usage.get("completion_tokens", self.completion)
            self.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", self.cached)


async def _sse(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Yield the data of each event of an event stream."""
    try:
        async for line in response.content:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8")
    except (ValueError, HttpProcessingError) as error:  # bytes that are not UTF-8; a line beyond the buffer
        raise EngineError("serving.engine_garbage", reason=str(error)) from error
    except RuntimeError as error:  # aiohttp's word for reading on after the session was closed
        raise EngineError("serving.engine_gone", reason=str(error)) from error


def _json(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise EngineError("serving.engine_garbage", reason=data[:100]) from error
    if not isinstance(value, dict):
        raise EngineError("serving.engine_garbage", reason=data[:100])
    return value


def _texts(choice: dict[str, Any], wire: Wire) -> tuple[str, str]:
    if wire == "completions":
        return choice.get("text") or "", ""
    delta = choice.get("delta") or {}
    return delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""


async def _reason(response: aiohttp.ClientResponse) -> str:
    try:
        body = await asyncio.wait_for(response.content.read(4096), timeout=5)
    except TimeoutError as error:
        raise EngineTimeoutError("serving.engine_silent", seconds=5) from error
    text = body.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        return text[:300] or (response.reason or "")
    return _error_text(value.get("error", value)) if isinstance(value, dict) else text[:300]


def _error_text(error: object) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]


async def cancel_surely(task: asyncio.Task[None]) -> None:
    """Cancel a task that probes a server, and wait until it has ended.

    Once is not enough: a cancellation that arrives while a request runs into its own time limit is taken for that
    limit and gets lost in it.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_PATIENCE)
    if not task.cancelled():
        task.result()

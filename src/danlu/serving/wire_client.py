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
from danlu.i18n import t
from danlu.serving.engine import (
    Call,
    EmbeddingRequest,
    Embeddings,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    FinishReason,
    Wire,
)
from danlu.serving.wire_format import CallDeltas, body_of, embeddings_of, logprobs_of

_PATIENCE = 0.1
_SHOWN = 100  # characters of what a server sent, in an error
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
        """Return whether our own child answers that it is ready within ``timeout`` seconds."""
        url = self.base_url.removesuffix("/v1") + "/health"
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.get(url, timeout=limit, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def models(self, timeout: float) -> list[str] | None:
        """Return the names of the server's models, empty when it does not tell; None when it does not answer."""
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.get(f"{self.base_url}/models", timeout=limit, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                listed = _json((await response.read()).decode("utf-8", errors="replace")).get("data") or []
                return [str(one["id"]) for one in listed if isinstance(one, dict) and "id" in one]
        except (aiohttp.ClientError, TimeoutError):
            return None
        except EngineError:
            return []

    async def load_adapter(self, name: str, path: str, timeout: float) -> str | None:
        """Let the server lay an adapter over its base, under a name of its own: vLLM's ``/load_lora_adapter``.

        Returns:
            None when it has, else why not.
        """
        limit = aiohttp.ClientTimeout(total=timeout)
        body = {"lora_name": name, "lora_path": path}
        url = f"{self.base_url}/load_lora_adapter"
        try:
            async with self._session.post(url, json=body, timeout=limit, allow_redirects=False) as response:
                if response.status == 200:
                    return None
                text = (await response.read()).decode("utf-8", errors="replace")
                return f"HTTP {response.status} {' '.join(text.split())[:_SHOWN]}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return _lost(error)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate; leaving the generator closes the connection, which stops the server's work.

        Raises:
            EngineError: the server refused, went away, or did not speak the wire format.
        """
        path = "/completions" if self.wire == "completions" else "/chat/completions"
        try:
            response = await self._session.post(
                self.base_url + path,
                json=body_of(request, self.model, self.wire, own=self.own),
                headers=_headers(request.request_id),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError("serving.engine_gone", reason=_lost(error)) from error
        self._open.add(response)
        try:
            if response.status != 200:
                raise EngineError("serving.engine_refused", status=response.status, reason=await _reason(response))
            async with aclosing(self._events(response)) as events:
                async for event in events:
                    yield event
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineError("serving.engine_gone", reason=_lost(error)) from error
        finally:
            self._open.discard(response)
            response.close()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            EngineError: the server refused, went away, or did not speak the wire format.
        """
        given = [list(ids) for ids in request.ids] if self.wire == "completions" else list(request.texts)
        body: dict[str, object] = {"model": self.model, "input": given, "encoding_format": "float"}
        if self.own and request.adapter is not None:
            body["adapter"] = str(request.adapter)
        try:
            async with self._session.post(
                f"{self.base_url}/embeddings", json=body, headers=_headers(request.request_id), allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise EngineError("serving.engine_refused", status=response.status, reason=await _reason(response))
                return embeddings_of(_json((await response.read()).decode("utf-8", errors="replace")), len(given))
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineError("serving.engine_gone", reason=_lost(error)) from error

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        reason: FinishReason | None = None
        counted, usage, calls = 0, _Usage(), CallDeltas()
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
            called = calls.read(choice)
            some = bool(text or reasoning or called)
            tokens = max(0, int(total) - counted) if total is not None else int(some)
            counted += tokens
            made: tuple[Call, ...] = ()
            if choice.get("finish_reason") is not None:
                reason = "length" if choice["finish_reason"] == "length" else "stop"
                made = calls.whole()
            yield EnginePiece(text, reasoning, tokens, logprobs_of(choice), made)
        if reason is None:
            raise EngineError("serving.engine_gone", reason=t("serving.in_the_middle"))
        yield EngineFinish(reason, usage.prompt, usage.completion, usage.cached)


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
        raise EngineError("serving.engine_garbage", reason=str(error)[:_SHOWN]) from error
    except RuntimeError as error:  # aiohttp's word for reading on after the session was closed
        raise EngineError("serving.engine_gone", reason=str(error)) from error


def _lost(error: BaseException) -> str:
    """Say how a connection was lost, without the library's own account of it."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return t("serving.in_the_middle")
    return (str(error) or type(error).__name__).splitlines()[0][:_SHOWN]


def _headers(request_id: str) -> dict[str, str]:
    return {"X-Request-Id": request_id} if request_id else {}


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

"""OpenAI's routes and ``/answer`` without a web framework: bodies in, JSON or bytes of a stream out.

How the server's routes use it::

    try:
        result = await api.chat_completions(registry, await request.body())
    except DanluError as error:                       # before the first byte: a real status code
        status, headers, body = api.error_response(error)
        return JSONResponse(body, status, headers)
    if isinstance(result, dict):
        return JSONResponse(result)
    return StreamingResponse(result, media_type="text/event-stream", headers=api.STREAM_HEADERS)

A stream is an async generator; Starlette closes it when the reader goes away, and closing it stops the engine. For
an answer that is not streamed wrap the call in ``until_gone`` so that a caller who leaves stops the engine, too.
Errors after the first byte arrive as a ``data: {"error": …}`` event, and the stream ends without ``[DONE]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

from danlu.errors import BusyError, DanluError
from danlu.i18n import Language
from danlu.serving import openai_wire as wire
from danlu.serving.engine import Finish, GatewayEvent, GenerationRequest, Queued, TextPiece
from danlu.serving.openai_wire import AnswerRequest, ChatCompletionRequest, CompletionRequest, Json
from danlu.serving.registry import Entry, GatewayRegistry

STREAM_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
Body = bytes | str | Mapping[str, Any]
Stream = AsyncGenerator[bytes, None]
Events = AsyncGenerator[GatewayEvent, None]
T = TypeVar("T")


class _Format(Protocol):
    """How one route writes an answer."""

    def piece(self, content: str, reasoning: str) -> bytes | None:
        """Return the bytes of a piece of a stream."""
        ...

    def end(self, content: str, finish: Finish) -> list[bytes]:
        """Return the last bytes of a stream."""
        ...

    def whole(self, content: str, reasoning: str, finish: Finish) -> Json:
        """Return an answer that is not streamed."""
        ...


async def chat_completions(registry: GatewayRegistry, body: Body) -> Json | Stream:
    """Answer ``POST /v1/chat/completions``.

    Raises:
        WireError: the request cannot be honoured (400).
        NotFoundError: no such model (404).
        TooLargeError: prompt beyond the context (413).
        BusyError: queue full (503 with ``Retry-After``).
        EngineError: the engine is down (502, 504).
    """
    request = wire.parse(ChatCompletionRequest, body)
    entry = registry.get(request.model)
    generation = entry.served.request(tuple(item.message() for item in request.messages), request.overrides())
    return await _answer(entry, generation, _Chat(entry.served.name, request.wants_usage()), stream=request.stream)


async def completions(registry: GatewayRegistry, body: Body) -> Json | Stream:
    """Answer ``POST /v1/completions``: the prompt goes to the model as it is. Errors as ``chat_completions``."""
    request = wire.parse(CompletionRequest, body)
    entry = registry.get(request.model)
    prompt = request.single()
    ids = await entry.gateway.encode(prompt) if isinstance(prompt, str) else prompt
    generation = GenerationRequest(prompt_ids=ids, sampling=entry.served.sampling(request.overrides()))
    return await _answer(entry, generation, _Text(entry.served.name, request.wants_usage()), stream=request.stream)


async def answer(registry: GatewayRegistry, body: Body) -> Json | Stream:
    """Answer ``/answer``; pass the JSON body of a POST or the query of a GET. Errors as ``chat_completions``."""
    request = wire.parse(AnswerRequest, body)
    entry = registry.get(request.assistant)
    generation = entry.served.request(request.messages(), request.overrides())
    return await _answer(entry, generation, _Plain(entry.served.name), stream=request.stream)


def models(registry: GatewayRegistry) -> Json:
    """Answer ``GET /v1/models``."""
    return {"object": "list", "data": [wire.model_object(name, _STARTED) for name in registry.names()]}


def model(registry: GatewayRegistry, name: str) -> Json:
    """Answer ``GET /v1/models/NAME``.

    Raises:
        NotFoundError: no such model.
    """
    return wire.model_object(registry.get(name).served.name, _STARTED)


def error_response(error: DanluError, lang: Language | None = None) -> tuple[int, dict[str, str], Json]:
    """Return status, headers and OpenAI-shaped body of an error."""
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, BusyError) else {}
    return error.status, headers, wire.error_body(error, lang)


async def until_gone(work: Coroutine[Any, Any, T], gone: Awaitable[object]) -> T | None:
    """Do ``work``, but cancel it when ``gone`` (the caller's disconnection) comes first; then None is returned.

    With Starlette: ``gone`` is a coroutine that reads ``await request.receive()`` until ``http.disconnect``.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _answer(entry: Entry, request: GenerationRequest, form: _Format, *, stream: bool) -> Json | Stream:
    events = entry.gateway.generate(request)
    if not stream:
        async with aclosing(events):
            return await _collect(events, form)
    first = await anext(events)  # admission and the prompt's length are settled here, so errors get a status code
    return _stream(events, first, form)


async def _collect(events: Events, form: _Format) -> Json:
    content, reasoning = [], []
    async for event in events:
        if isinstance(event, TextPiece):
            content.append(event.content)
            reasoning.append(event.reasoning)
        elif isinstance(event, Finish):
            return form.whole("".join(content), "".join(reasoning), event)
    raise AssertionError("a gateway ends with Finish or raises")


async def _stream(events: Events, first: GatewayEvent, form: _Format) -> Stream:
    content: list[str] = []
    async with aclosing(events):
        try:
            event = first
            while True:
                if isinstance(event, Queued):
                    yield wire.sse_comment(f"queued {event.position}")
                elif isinstance(event, TextPiece):
                    content.append(event.content)
                    data = form.piece(event.content, event.reasoning)
                    if data is not None:
                        yield data
                elif isinstance(event, Finish):
                    for data in form.end("".join(content), event):
                        yield data
                    return
                else:
                    yield wire.sse_comment("started")
                event = await anext(events)
        except DanluError as error:
            yield wire.sse(wire.error_body(error))


class _Chat:
    def __init__(self, model_name: str, with_usage: bool) -> None:
        self._head = (wire.new_id("chatcmpl"), wire.now(), model_name)
        self._with_usage = with_usage
        self._begun = False

    def piece(self, content: str, reasoning: str) -> bytes | None:
        delta: Json = {} if self._begun else {"role": "assistant"}
        self._begun = True
        if reasoning:
            delta["reasoning_content"] = reasoning
        if content:
            delta["content"] = content
        return wire.sse(wire.chat_chunk(*self._head, delta))

    def end(self, content: str, finish: Finish) -> list[bytes]:
        last: Json = {} if self._begun else {"role": "assistant", "content": ""}
        tail = [wire.sse(wire.chat_chunk(*self._head, last, finish.reason))]
        if self._with_usage:
            tail.append(wire.sse(wire.usage_chunk("chat.completion.chunk", *self._head, finish)))
        return [*tail, wire.DONE]

    def whole(self, content: str, reasoning: str, finish: Finish) -> Json:
        return wire.chat_response(*self._head, content, reasoning, finish)


class _Text:
    def __init__(self, model_name: str, with_usage: bool) -> None:
        self._head = (wire.new_id("cmpl"), wire.now(), model_name)
        self._with_usage = with_usage

    def piece(self, content: str, reasoning: str) -> bytes | None:
        return wire.sse(wire.completion_chunk(*self._head, content)) if content else None

    def end(self, content: str, finish: Finish) -> list[bytes]:
        tail = [wire.sse(wire.completion_chunk(*self._head, "", finish.reason))]
        if self._with_usage:
            tail.append(wire.sse(wire.usage_chunk("text_completion", *self._head, finish)))
        return [*tail, wire.DONE]

    def whole(self, content: str, reasoning: str, finish: Finish) -> Json:
        return wire.completion_response(*self._head, content, finish)


class _Plain:
    def __init__(self, model_name: str) -> None:
        self._model = model_name

    def piece(self, content: str, reasoning: str) -> bytes | None:
        return wire.sse({"text": content}) if content else None

    def end(self, content: str, finish: Finish) -> list[bytes]:
        return [wire.sse(self.whole(content, "", finish)), wire.DONE]

    def whole(self, content: str, reasoning: str, finish: Finish) -> Json:
        return {"generated_text": content, "model": self._model, "finish_reason": finish.reason}


_STARTED: Final = wire.now()

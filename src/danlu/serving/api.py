"""OpenAI's routes and ``/answer`` without a web framework: bodies in, JSON or bytes of a stream out.

How the server's routes use it::

    try:
        result = await api.chat_completions(registry, await request.body(), caller)
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
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from danlu.accounts.errors import NoKeyError, QuotaError
from danlu.errors import BusyError, DanluError
from danlu.i18n import Language
from danlu.serving import openai_wire as wire
from danlu.serving.answer_request import AnswerRequest
from danlu.serving.answering import Stream, answers
from danlu.serving.anthropic_wire import MessageAnswers, MessagesRequest
from danlu.serving.caller import Caller
from danlu.serving.engine import Form, GenerationRequest
from danlu.serving.formats import ChatAnswers, PlainAnswers, TextAnswers
from danlu.serving.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingsRequest, parse
from danlu.serving.openai_wire import Json
from danlu.serving.registry import GatewayRegistry

STREAM_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
ANYONE: Final = Caller()
Body = bytes | str | Mapping[str, Any]
T = TypeVar("T")


async def chat_completions(registry: GatewayRegistry, body: Body, caller: Caller = ANYONE) -> Json | Stream:
    """Answer ``POST /v1/chat/completions``.

    Raises:
        WireError: the request cannot be honoured (400).
        ModelError: the model's template refuses the conversation (422).
        NotFoundError: no such model (404).
        TooLargeError: prompt beyond the context (413).
        BusyError: queue full (503 with ``Retry-After``).
        EngineError: the engine is down (502, 504).
    """
    request = parse(ChatCompletionRequest, body)
    entry = caller.pick(registry, request.model)
    messages = tuple(item.message() for item in request.messages)
    form, origin = request.form(), caller.origin(entry.served.name)
    wanted = [
        entry.served.request(messages, request.overrides(choice), form=form, origin=origin)
        for choice in range(request.choices)
    ]
    written = ChatAnswers(entry.served.name, request.wants_usage(), form.top_logprobs)
    return await answers(entry.gateway, wanted, written, stream=request.stream)


async def completions(registry: GatewayRegistry, body: Body, caller: Caller = ANYONE) -> Json | Stream:
    """Answer ``POST /v1/completions``: prompts go to the model as they are. Errors as ``chat_completions``."""
    request = parse(CompletionRequest, body)
    entry = caller.pick(registry, request.model)
    prompts = request.prompts()
    base = GenerationRequest(form=Form(top_logprobs=request.logprobs), origin=caller.origin(entry.served.name))
    wanted: list[GenerationRequest] = []
    for prompt in prompts:
        ids = await entry.gateway.encode(prompt) if isinstance(prompt, str) else prompt
        wanted += [
            replace(base, prompt_ids=tuple(ids), sampling=entry.served.sampling(request.overrides(choice)))
            for choice in range(request.choices)
        ]
    echoed = [prompt for prompt in prompts if isinstance(prompt, str)] if request.echo else []
    written = TextAnswers(
        entry.served.name, request.wants_usage(), request.logprobs, len(prompts),
        [text for text in echoed for _ in range(request.choices)],
    )  # fmt: skip
    return await answers(entry.gateway, wanted, written, stream=request.stream)


async def messages(registry: GatewayRegistry, body: Body, caller: Caller = ANYONE) -> Json | Stream:
    """Answer ``POST /v1/messages`` in Anthropic's format. Errors as ``chat_completions``."""
    request = parse(MessagesRequest, body)
    entry = caller.pick(registry, request.model)
    wanted = entry.served.request(
        request.conversation(), request.overrides(), form=request.form(), origin=caller.origin(entry.served.name)
    )
    return await answers(entry.gateway, [wanted], MessageAnswers(entry.served.name), stream=request.stream)


async def answer(registry: GatewayRegistry, body: Body, caller: Caller = ANYONE) -> Json | Stream:
    """Answer ``/answer``; pass the JSON body of a POST or the query of a GET. Errors as ``chat_completions``."""
    request = parse(AnswerRequest, body)
    entry = caller.pick(registry, request.assistant)
    wanted = entry.served.request(request.messages(), request.overrides(), origin=caller.origin(entry.served.name))
    return await answers(entry.gateway, [wanted], PlainAnswers(entry.served.name), stream=request.stream)


async def embeddings(registry: GatewayRegistry, body: Body, caller: Caller = ANYONE) -> Json:
    """Answer ``POST /v1/embeddings``. Errors as ``chat_completions``."""
    request = parse(EmbeddingsRequest, body)
    entry = caller.pick(registry, request.model)
    made = await entry.gateway.embed(request.texts(), caller.origin(entry.served.name))
    return wire.embedding_list(entry.served.name, made, packed=request.encoding_format == "base64")


def models(registry: GatewayRegistry, caller: Caller = ANYONE) -> Json:
    """Answer ``GET /v1/models``: those that the caller may ask for."""
    return {"object": "list", "data": [wire.model_object(name, _STARTED) for name in caller.names(registry)]}


def model(registry: GatewayRegistry, name: str, caller: Caller = ANYONE) -> Json:
    """Answer ``GET /v1/models/NAME``.

    Raises:
        NotFoundError: no such model.
    """
    return wire.model_object(caller.pick(registry, name).served.name, _STARTED)


def error_response(error: DanluError, lang: Language | None = None) -> tuple[int, dict[str, str], Json]:
    """Return status, headers and OpenAI-shaped body of an error."""
    return error.status, error_headers(error), wire.error_body(error, lang)


def error_headers(error: DanluError) -> dict[str, str]:
    """Return the headers of an error: when to try again, or what to send."""
    if isinstance(error, BusyError | QuotaError):
        return {"Retry-After": str(error.retry_after)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, NoKeyError) else {}


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


_STARTED: Final = wire.now()

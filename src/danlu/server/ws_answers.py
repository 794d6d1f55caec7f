"""``/ws/answers``: a WebSocket for back ends, many questions on one connection, each with an id of the caller's own.

A question has the fields of ``/v1/chat/completions`` (or a plain ``prompt``) beside ``type`` and ``id``; the answer
comes as numbered pieces. Nothing is kept when the connection ends: that is what the web page's ``/ws`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from danlu.errors import ConflictError, DanluError
from danlu.server import streaming
from danlu.server.access import known_caller, services_of
from danlu.serving import openai_wire as wire
from danlu.serving.caller import Caller
from danlu.serving.engine import Finish, GatewayEvent, GenerationRequest, Queued, TextPiece
from danlu.serving.openai_requests import ChatCompletionRequest, WireError, parse

router = APIRouter(tags=["answer"])

log = logging.getLogger(__name__)

_GOING_AWAY: Final = 1001
_TRY_AGAIN: Final = 1013
_MOST_QUESTIONS: Final = 64  # of one connection at a time
Id = Annotated[str, Field(min_length=1, max_length=64)]


class Ask(ChatCompletionRequest):
    """A question."""

    type: Literal["ask"]
    id: Id
    prompt: str | None = Field(None, min_length=1, description="one question, in place of messages")

    @model_validator(mode="before")
    @classmethod
    def _prompt_as_message(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("prompt"), str) and "messages" not in value:
            return {**value, "messages": [{"role": "user", "content": value["prompt"]}]}
        return value

    @model_validator(mode="after")
    def _one_answer(self) -> Ask:
        if self.choices != 1:
            raise WireError("serving.unsupported_field", param="n")
        return self


class _Envelope(BaseModel):
    """What every message has; ``stop`` has nothing more."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["ask", "stop"]
    id: Id


class Answers:
    """One connection.

    Args:
        websocket: accepted.
        caller: who it belongs to.
    """

    def __init__(self, websocket: WebSocket, caller: Caller) -> None:
        self._websocket = websocket
        self._services = services_of(websocket)
        self._caller = caller
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._broken = asyncio.Event()

    async def run(self) -> None:
        """Take questions until the connection ends; then every answer under way ends, too."""
        reading, broken = asyncio.create_task(self._read()), asyncio.create_task(self._broken.wait())
        try:
            await asyncio.wait({reading, broken}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            else:
                await self.close(_TRY_AGAIN)
        finally:
            running = (reading, broken, *self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                await self._take(await self._websocket.receive_text())
        except (WebSocketDisconnect, KeyError):
            return  # a KeyError is a frame of bytes: whoever sends such speaks another language

    async def close(self, code: int) -> None:
        """Close the connection because the server goes away."""
        if self._websocket.client_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError):
                await self._websocket.close(code)

    async def _take(self, text: str) -> None:
        try:
            envelope = parse(_Envelope, text)
        except DanluError as error:
            await self._send({"id": _id_of(text), "type": "error", **wire.error_body(error)})
            return
        if envelope.type == "stop":
            task = self._running.get(envelope.id)
            if task is not None:
                task.cancel()
            return
        try:
            if envelope.id in self._running:
                raise ConflictError("server.id_in_use", id=envelope.id)
            if len(self._running) >= _MOST_QUESTIONS:
                raise WireError("serving.too_many", param="id", most=_MOST_QUESTIONS)
            asked = parse(Ask, text)
        except DanluError as error:
            await self._send({"id": envelope.id, "type": "error", **wire.error_body(error)})
            return
        task = asyncio.create_task(self._answer(asked), name=f"answer {asked.id}")
        self._running[asked.id] = task
        task.add_done_callback(lambda done: self._over(asked.id, done))

    def _over(self, question: str, task: asyncio.Task[None]) -> None:
        self._running.pop(question, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        # The connection cannot go on: it has ended, or the caller would wait for an answer that does not come.
        if not isinstance(error, WebSocketDisconnect):
            log.error("answer %s of a connection failed", question, exc_info=error)
        self._broken.set()

    async def _answer(self, asked: Ask) -> None:
        try:
            if self._caller.key is not None:
                # Checked again: it may have been revoked since the connection was made.
                await known_caller(self._websocket)
                await asyncio.to_thread(self._services.keys.admit, self._caller.key)
            entry = self._caller.pick(self._services.registry, asked.model)
            request = entry.served.request(
                tuple(item.message() for item in asked.messages),
                asked.overrides(),
                form=asked.form(),
                origin=self._caller.origin(entry.served.name),
            )
            await self._stream(asked.id, entry.gateway.generate(request), request)
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._send({"id": asked.id, "type": "stopped"})
        except DanluError as error:
            await self._send({"id": asked.id, "type": "error", **wire.error_body(error)})

    async def _stream(self, question: str, source: Any, request: GenerationRequest) -> None:
        content = ""
        async with aclosing(source) as events:
            event: GatewayEvent
            async for event in events:
                if isinstance(event, TextPiece):
                    content += event.content
                    await self._send({"id": question, "type": "text", **_piece(event, request.form.top_logprobs)})
                elif isinstance(event, Finish):
                    end = {"content": content, "finish_reason": event.reason, "usage": wire.usage([event])}
                    await self._send({"id": question, "type": "done", **end})
                elif isinstance(event, Queued):
                    place = {"position": event.position, "eta_seconds": event.eta_seconds}
                    await self._send({"id": question, "type": "queued", **place})
                else:
                    await self._send({"id": question, "type": "started"})

    async def _send(self, value: dict[str, Any]) -> None:
        async with self._sending:
            try:
                async with asyncio.timeout(streaming.SLOW_SECONDS):
                    await self._websocket.send_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
            except TimeoutError as error:
                log.warning("a connection was ended: its reader took nothing for %g seconds", streaming.SLOW_SECONDS)
                raise WebSocketDisconnect(_TRY_AGAIN) from error


@router.websocket("/ws/answers")
async def answers(websocket: WebSocket) -> None:
    """Accept a back end that has a key, if keys are needed, and serve it."""
    services = services_of(websocket)
    try:
        caller = await known_caller(websocket)
    except DanluError as error:
        await websocket.send_denial_response(JSONResponse(wire.error_body(error), error.status))
        return
    await websocket.accept()
    connection = Answers(websocket, caller)
    services.connections.add(connection)
    try:
        await connection.run()
    finally:
        services.connections.discard(connection)


async def close_connections(connections: set[Answers]) -> None:
    """Close every connection because the server goes away."""
    await asyncio.gather(*(connection.close(_GOING_AWAY) for connection in tuple(connections)))


def _piece(event: TextPiece, top: int | None) -> dict[str, Any]:
    made: dict[str, Any] = {"content": event.content}
    if event.reasoning:
        made["reasoning"] = event.reasoning
    if event.calls:
        made["tool_calls"] = [wire.call_object(call) for call in event.calls]
    if top is not None and event.logprobs:
        made["logprobs"] = wire.chat_logprobs(event.logprobs, top)
    return made


def _id_of(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    given = value.get("id") if isinstance(value, dict) else None
    return given if isinstance(given, str) else None

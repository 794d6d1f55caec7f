"""``/ws``: one socket a tab, following any number of conversations.

Events are not queued for a socket: each followed conversation has a position in the room's own log, and the writer
takes from there as fast as the socket accepts. A slow socket therefore costs no memory; one that falls out of the log
gets a snapshot. What is queued, acknowledgements and news of the list, is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from danlu.chat.directory import Listed
from danlu.chat.hub import Change
from danlu.chat.room import Room
from danlu.chat.wire import ConversationView, EngineFrame, ListFrame
from danlu.errors import DanluError
from danlu.i18n import Language, language
from danlu.server.access import services_of
from danlu.server.commands import COMMANDS, Command, Envelope, Ping, Regenerate, Send, Stop, Subscribe, Unsubscribe
from danlu.server.problems import invalid_command
from danlu.server.services import Services
from danlu.store.records import Conversation

router = APIRouter()
log = logging.getLogger(__name__)

PROTOCOL: Final = 1
MOST_SOCKETS: Final = 256
_MOST_FOLLOWED: Final = 64
_MOST_REPLIES: Final = 64
_MOST_NEWS: Final = 512
_FLUSH_SECONDS: Final = 1.0
GOING_AWAY: Final = 1001
TRY_AGAIN: Final = 1013


@dataclass
class _Followed:
    """A conversation that a socket follows; ``seq`` is the last event sent, None before the first snapshot."""

    room: Room
    seq: int | None


class Socket:
    """One open WebSocket.

    Args:
        websocket: accepted already.
        services: of this server.
        lang: in which errors are worded.
    """

    def __init__(self, websocket: WebSocket, services: Services, lang: Language) -> None:
        self._websocket = websocket
        self._services = services
        self._lang: Language = lang
        self._followed: dict[str, _Followed] = {}
        self._replies: deque[str] = deque()
        # News by what it is about: a later one replaces an earlier one that has not gone out yet.
        self._news: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._ending = asyncio.Event()
        self._close_code: int | None = None

    async def run(self) -> None:
        """Serve the socket until either side closes it."""
        services = self._services
        forget = services.hub.listen(self._conversation_changed, self._engine_changed)
        welcome = {"type": "welcome", "protocol": PROTOCOL, "epoch": services.streams.epoch}
        self._reply(json.dumps(welcome))
        # The last one ends a socket whose reading or writing is stuck.
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._ended())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            forget()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for conversation_id in tuple(self._followed):
                self._unfollow(conversation_id)
        if self._close_code is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                await asyncio.wait_for(self._websocket.close(self._close_code), _FLUSH_SECONDS)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    async def close(self, code: int) -> None:
        """Send what is waiting, a second at most, and close with ``code``."""
        with contextlib.suppress(TimeoutError):
            self._idle.clear()
            self._wake.set()
            await asyncio.wait_for(self._idle.wait(), _FLUSH_SECONDS)
        self._end(code)

    async def _ended(self) -> None:
        await self._ending.wait()

    # Reading: one command after the other, in the order of the person's actions

    async def _read(self) -> None:
        while True:
            while len(self._replies) > _MOST_REPLIES:
                # The reader of the answers is slow: take no more questions until it has caught up.
                self._idle.clear()
                await self._idle.wait()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._handle(message.get("text") or "")

    async def _handle(self, text: str) -> None:
        try:
            command = COMMANDS.validate_json(text)
        except ValidationError as error:
            self._refuse(_id_of(text), invalid_command(error))
            return
        try:
            result = await self._do(command)
        except DanluError as error:
            self._refuse(command.id, error)
            return
        kind = "pong" if isinstance(command, Ping) else "ack"
        self._reply(json.dumps({"type": kind, "id": command.id, **result}))

    async def _do(self, command: Command) -> dict[str, str]:
        streams = self._services.streams
        match command:
            case Subscribe():
                await self._follow(command)
            case Unsubscribe():
                self._unfollow(command.conversation_id)
            case Send():
                exchange = await streams.send(
                    command.conversation_id,
                    client_id=command.client_id,
                    parent_id=command.parent_id,
                    content=command.content,
                )
                return {"user_message_id": exchange.question.id, "assistant_message_id": exchange.answer.id}
            case Regenerate():
                exchange = await streams.regenerate(
                    command.conversation_id, client_id=command.client_id, message_id=command.message_id
                )
                return {"user_message_id": exchange.question.id, "assistant_message_id": exchange.answer.id}
            case Stop():
                await streams.stop(command.conversation_id, command.message_id)
            case Ping():
                pass
        return {}

    async def _follow(self, command: Subscribe) -> None:
        streams, conversation_id = self._services.streams, command.conversation_id
        if conversation_id not in self._followed and len(self._followed) >= _MOST_FOLLOWED:
            self._unfollow(next(iter(self._followed)))
        room = await streams.rooms.enter(conversation_id)
        self._unfollow(conversation_id)
        seq = command.last_seq
        known = command.epoch == streams.epoch and seq is not None and room.after(seq) is not None
        self._followed[conversation_id] = _Followed(room, seq if known else None)
        room.follow(self._wake.set)
        self._wake.set()

    def _unfollow(self, conversation_id: str) -> None:
        followed = self._followed.pop(conversation_id, None)
        if followed is not None:
            followed.room.unfollow(self._wake.set)
            self._services.streams.rooms.leave(followed.room)

    # Writing

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._write_some():
                pass
            self._idle.set()

    async def _write_some(self) -> bool:
        """Send what there is; return whether there was anything."""
        busy = False
        while self._replies:
            await self._send(self._replies.popleft())
            busy = True
        while self._news:
            await self._send(self._news.pop(next(iter(self._news))))
            busy = True
        for conversation_id, followed in tuple(self._followed.items()):
            entries = None if followed.seq is None else followed.room.after(followed.seq)
            if entries is None:
                frame = followed.room.snapshot(self._services.streams.epoch, self._lang)
                followed.seq = followed.room.seq
                await self._send(frame)
                busy = True
                continue
            for entry in entries:
                if self._followed.get(conversation_id) is not followed:
                    break
                followed.seq = entry.seq
                await self._send(entry.frame(self._lang))
                busy = True
        return busy

    async def _send(self, frame: str) -> None:
        await self._websocket.send_text(frame)

    # What comes from elsewhere

    def _conversation_changed(self, change: Change, conversation: Conversation) -> None:
        view = ConversationView.of(conversation)
        self._tell(f"conversation {conversation.id}", ListFrame(change=change, conversation=view).model_dump_json())

    def _engine_changed(self, listed: Listed) -> None:
        view = self._services.directory.view(listed, self._lang)
        self._tell(f"engine {listed.assistant.id}", EngineFrame(assistant=view).model_dump_json())

    def _tell(self, about: str, frame: str) -> None:
        if self._close_code is not None:
            return
        self._news.pop(about, None)
        self._news[about] = frame
        if len(self._news) > _MOST_NEWS:
            # Far behind: let the browser connect again and read the list anew.
            self._end(TRY_AGAIN)
        self._wake.set()

    def _reply(self, frame: str) -> None:
        self._replies.append(frame)
        self._wake.set()

    def _refuse(self, command_id: str | None, error: DanluError) -> None:
        frame = {"type": "error", "id": command_id, "problem": error.problem(self._lang)}
        self._reply(json.dumps(frame, ensure_ascii=False))

    def _end(self, code: int) -> None:
        self._close_code = code
        self._ending.set()


@router.websocket("/ws")
async def live(websocket: WebSocket) -> None:
    """Accept a socket and serve it; ``Guard`` has looked at where it comes from."""
    services = services_of(websocket)
    await websocket.accept()
    if len(services.sockets) >= MOST_SOCKETS:
        await websocket.close(TRY_AGAIN)
        return
    socket = Socket(websocket, services, language())
    services.sockets.add(socket)
    try:
        await socket.run()
    finally:
        services.sockets.discard(socket)


async def close_sockets(services: Services) -> None:
    """Close every socket because the server goes away."""
    await asyncio.gather(*(socket.close(GOING_AWAY) for socket in tuple(services.sockets)))


def _id_of(text: str) -> str | None:
    try:
        return Envelope.model_validate_json(text).id
    except ValidationError:
        return None

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from danlu.chat.assistants import ensure_assistant
from danlu.chat.conversations import Conversations
from danlu.chat.directory import Directory, Listed
from danlu.chat.hub import Hub
from danlu.chat.pool import Pool
from danlu.chat.rooms import Rooms
from danlu.chat.streams import Streams
from danlu.chat.wire import ModelView
from danlu.models.versions import BaseModelRef, ModelVersion
from danlu.serving.gateway import Limits
from danlu.store.records import Assistant, Message
from danlu.store.store import Store
from tests.chat.engines import Script, ScriptedRegistry, served_model

VERSION = ModelVersion(id="Danlu-1", name="danlu", created_at="2026-01-01T00:00:00Z", base=BaseModelRef(name="tiny"))


@dataclass
class Chat:
    """The rooms of the chat, wired as the server wires them."""

    store: Store
    script: Script
    directory: Directory
    rooms: Rooms
    streams: Streams
    conversations: Conversations
    hub: Hub
    assistant: Assistant

    async def settled(self, message_id: str) -> Message:
        """Wait until an answer has ended and return what the database holds of it."""
        conversation_id = await self.conversation_of(message_id)
        async with asyncio.timeout(20):
            while self.streams.running_answer(message_id) is not None:
                await asyncio.sleep(0.005)
        return next(m for m in self.store.messages.thread(conversation_id)[1] if m.id == message_id)

    async def conversation_of(self, message_id: str) -> str:
        for item in self.store.conversations.page(limit=200).items:
            if any(m.id == message_id for m in self.store.messages.thread(item.id)[1]):
                return item.id
        raise AssertionError(message_id)


@asynccontextmanager
async def chat(
    home: Path, script: Script | None = None, *, limits: Limits | None = None, idle: int = 64, **changes
) -> AsyncIterator[Chat]:
    """Open a chat over ``home`` with a scripted engine."""
    script = script or Script()
    with Store.open(home / "danlu.db") as store:
        pool, hub = Pool(), Hub()
        registry = ScriptedRegistry(script, limits)
        directory = Directory(registry)
        rooms = Rooms(store, pool, idle)
        streams = Streams(store, pool, rooms, directory, hub)
        conversations = Conversations(store, pool, rooms, streams, directory, hub)
        served = served_model(**changes)
        assistant = ensure_assistant(store, VERSION, served.name, "Hi!", ["Who are you?"])
        directory.put(Listed(assistant, ModelView(version_id="Danlu-1", name="danlu", base="tiny")))
        await registry.serve(served)
        try:
            yield Chat(store, script, directory, rooms, streams, conversations, hub, assistant)
        finally:
            await streams.close()
            await registry.close()


@pytest.fixture
def anyio_backend() -> str:
    """Run the asynchronous tests of this folder on asyncio."""
    return "asyncio"

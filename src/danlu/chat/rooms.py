"""The rooms in memory: loaded from the database when first needed, forgotten when nobody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from danlu.chat.pool import Pool
from danlu.chat.room import Room
from danlu.errors import NotFoundError
from danlu.store.store import Store

IDLE_ROOMS: Final = 64


class Rooms:
    """Keeps one room a conversation, never two.

    Args:
        store: where conversations are loaded from.
        pool: threads for the database.
        idle: how many rooms that nobody uses stay in memory.
    """

    def __init__(self, store: Store, pool: Pool, idle: int = IDLE_ROOMS) -> None:
        self._store = store
        self._pool = pool
        self._idle = idle
        self._rooms: dict[str, Room] = {}
        # A lock lives as long as someone waits for it or holds it.
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Numbers of a forgotten room must not come again with other events: every new room starts above them all.
        self._floor = 0

    async def enter(self, conversation_id: str, *, deleted: bool = False) -> Room:
        """Return the room of a conversation, held until ``leave``.

        Raises:
            NotFoundError: no such conversation, or it is deleted (and ``deleted`` is not set).
        """
        lock = self._loading.setdefault(conversation_id, asyncio.Lock())
        async with lock:
            room = self._rooms.get(conversation_id)
            if room is None:
                load = self._store.messages.thread
                conversation, messages = await self._pool.run(lambda: load(conversation_id, deleted=deleted))
                room = Room(conversation, messages, self._floor)
            elif room.conversation.deleted_at is not None and not deleted:
                raise NotFoundError("store.conversation_missing", id=conversation_id)
            # At the end of the order: last used, last forgotten.
            self._rooms.pop(conversation_id, None)
            self._rooms[conversation_id] = room
            room.users += 1
            return room

    def leave(self, room: Room) -> None:
        """Give a room back; call it once for every ``enter``."""
        room.users -= 1
        idle = [conversation_id for conversation_id, other in self._rooms.items() if other.users == 0]
        for conversation_id in idle[: max(0, len(idle) - self._idle)]:
            self._floor = max(self._floor, self._rooms.pop(conversation_id).seq)

    @asynccontextmanager
    async def use(self, conversation_id: str, *, deleted: bool = False) -> AsyncIterator[Room]:
        """Hold a room for the code inside.

        Raises:
            NotFoundError: no such conversation, or it is deleted (and ``deleted`` is not set).
        """
        room = await self.enter(conversation_id, deleted=deleted)
        try:
            yield room
        finally:
            self.leave(room)

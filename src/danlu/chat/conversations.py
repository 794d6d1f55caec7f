"""The list of conversations: create, find, change, delete, restore, export. Not for live answers (``streams``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from danlu.chat.directory import Directory
from danlu.chat.hub import Change, Hub
from danlu.chat.pool import Pool
from danlu.chat.rooms import Rooms
from danlu.chat.streams import Streams
from danlu.chat.wire import ThreadView
from danlu.i18n import Language, language
from danlu.store.records import Conversation, ConversationPage, Message
from danlu.store.store import Store


class Conversations:
    """What a person does with conversations as a whole.

    Args:
        store: where they are kept.
        pool: threads for the database.
        rooms: those in memory, which hear of every change.
        streams: stops answers of a conversation that is deleted.
        directory: knows the default assistant.
        hub: told of every change.
    """

    def __init__(
        self, store: Store, pool: Pool, rooms: Rooms, streams: Streams, directory: Directory, hub: Hub
    ) -> None:
        self._table = store.conversations
        self._pool = pool
        self._rooms = rooms
        self._streams = streams
        self._directory = directory
        self._hub = hub

    async def page(self, *, query: str, limit: int, cursor: str | None) -> ConversationPage:
        """Return some conversations; see ``ConversationTable.page``."""
        return await self._pool.run(partial(self._table.page, query=query, limit=limit, cursor=cursor))

    async def create(self, assistant_id: str | None) -> Conversation:
        """Begin a conversation, with the default assistant when None is given.

        Raises:
            NotFoundError: no such assistant, or none at all.
        """
        chosen = assistant_id or self._directory.default().id
        created = await self._pool.run(lambda: self._table.create(chosen))
        self._hub.conversation("upsert", created)
        return created

    async def thread(self, conversation_id: str, lang: Language | None = None) -> ThreadView:
        """Return a conversation with all its messages, as of its last event.

        Raises:
            NotFoundError: no such conversation.
        """
        async with self._rooms.use(conversation_id) as room:
            return room.thread(self._streams.epoch, lang or language())

    async def messages(self, conversation_id: str) -> tuple[Conversation, tuple[Message, ...]]:
        """Return a conversation and its messages as records.

        Raises:
            NotFoundError: no such conversation.
        """
        async with self._rooms.use(conversation_id) as room:
            return room.conversation, tuple(room.messages.values())

    async def change(
        self, conversation_id: str, *, title: str | None, pinned: bool | None, leaf_id: str | None
    ) -> Conversation:
        """Change what is not None.

        Raises:
            NotFoundError: no such conversation, or ``leaf_id`` is not one of its messages.
        """
        work = partial(self._table.change, conversation_id, title=title, pinned=pinned, leaf_id=leaf_id)
        return await self._apply(conversation_id, work, "upsert")

    async def delete(self, conversation_id: str) -> None:
        """Stop its answers and hide a conversation; ``restore`` brings it back.

        Raises:
            NotFoundError: no such conversation.
        """
        await self._streams.stop_all(conversation_id)
        await self._apply(conversation_id, partial(self._table.delete, conversation_id), "delete")

    async def restore(self, conversation_id: str) -> Conversation:
        """Bring a deleted conversation back.

        Raises:
            NotFoundError: no such conversation.
        """
        work = partial(self._table.restore, conversation_id)
        return await self._apply(conversation_id, work, "upsert", deleted=True)

    async def _apply(
        self, conversation_id: str, work: Callable[[], Conversation], change: Change, *, deleted: bool = False
    ) -> Conversation:
        async with self._rooms.use(conversation_id, deleted=deleted) as room:
            async with room.lock:
                room.put_conversation(await self._pool.run(work))
            self._hub.conversation(change, room.conversation)
            return room.conversation

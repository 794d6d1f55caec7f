"""Questions, answers and readers: what a person can do in a conversation while it is alive.

Generation belongs to the server: closing every tab changes nothing about an answer, and any number of tabs read it.
Not for the list of conversations (``conversations``), which shares rooms and the hub with this.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

from danlu.chat.answers import Answer, Ending
from danlu.chat.directory import Directory
from danlu.chat.hub import Hub
from danlu.chat.pool import Pool
from danlu.chat.room import Room
from danlu.chat.rooms import Rooms
from danlu.chat.titles import title_from
from danlu.errors import NotFoundError, UsageError
from danlu.store.messages import Exchange
from danlu.store.store import Store

log = logging.getLogger(__name__)

LONGEST_QUESTION: Final = 100_000
_CLOSE_SECONDS: Final = 5.0


class Streams:
    """The living conversations of one server.

    Attributes:
        epoch: new at every start of the server; event numbers of another epoch mean nothing.
        rooms: the conversations in memory.

    Args:
        store: where everything is kept.
        pool: threads for the database.
        rooms: shared with ``conversations``.
        directory: who answers.
        hub: told when the list of conversations changes.
    """

    def __init__(self, store: Store, pool: Pool, rooms: Rooms, directory: Directory, hub: Hub) -> None:
        self.epoch = uuid.uuid4().hex
        self.rooms = rooms
        self._store = store
        self._pool = pool
        self._directory = directory
        self._hub = hub
        self._answers: dict[str, Answer] = {}
        self._closed = False

    async def send(self, conversation_id: str, *, client_id: str, parent_id: str | None, content: str) -> Exchange:
        """Ask a question and begin its answer; done before under the same ``client_id``, nothing happens again.

        Raises:
            NotFoundError: no such conversation or parent.
            ConflictError: ``client_id`` was used for something else, or the answer before is not finished.
            UsageError: no text, or too much of it.
        """
        if not content.strip():
            raise UsageError("chat.nothing_said")
        if len(content) > LONGEST_QUESTION:
            raise UsageError("chat.question_too_long", characters=len(content), most=LONGEST_QUESTION)
        begin = partial(
            self._store.messages.begin_exchange,
            conversation_id,
            client_id=client_id,
            parent_id=parent_id,
            content=content,
            title=title_from(content),
        )
        return await self._begin(conversation_id, begin, new_question=True)

    async def regenerate(self, conversation_id: str, *, client_id: str, message_id: str) -> Exchange:
        """Begin another answer beside ``message_id``; done before under the same ``client_id``, nothing happens again.

        Raises:
            NotFoundError: no such conversation or message.
            ConflictError: ``client_id`` was used for something else, or the message is not a finished answer.
        """
        begin = partial(self._store.messages.begin_again, conversation_id, client_id=client_id, message_id=message_id)
        return await self._begin(conversation_id, begin, new_question=False)

    async def stop(self, conversation_id: str, message_id: str) -> None:
        """Stop an answer and free the engine; returns when that is saved. A finished answer stays as it is.

        Raises:
            NotFoundError: no such conversation or message.
        """
        async with self.rooms.use(conversation_id) as room:
            if message_id not in room.messages:
                raise NotFoundError("store.message_missing", id=message_id)
            answer = self._answers.get(message_id)
            if answer is not None:
                await answer.stop("stopped")

    async def stop_all(self, conversation_id: str, ending: Ending = "stopped") -> None:
        """Stop every answer of a conversation and wait until that is saved."""
        async with self.rooms.use(conversation_id) as room:
            running = [answer for message_id, answer in self._answers.items() if message_id in room.messages]
            await asyncio.gather(*(answer.stop(ending) for answer in running))

    async def close(self) -> None:
        """Interrupt every answer, keep its text, and begin no new ones; waits a few seconds at most."""
        self._closed = True
        endings = [asyncio.create_task(answer.stop("interrupted")) for answer in self._answers.values()]
        if endings:
            _, late = await asyncio.wait(endings, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
                log.warning("an answer could not be saved in time")

    def running_answer(self, message_id: str) -> Answer | None:
        """Return the answer that fills a message, while it waits or is being generated."""
        return self._answers.get(message_id)

    async def _begin(self, conversation_id: str, begin: Callable[[], Exchange], *, new_question: bool) -> Exchange:
        # Carried out to its end even if the caller goes away: a question that is saved must also be answered.
        work = asyncio.create_task(self._begin_now(conversation_id, begin, new_question=new_question))
        return await asyncio.shield(work)

    async def _begin_now(self, conversation_id: str, begin: Callable[[], Exchange], *, new_question: bool) -> Exchange:
        if self._closed:
            raise UsageError("chat.closing")
        room = await self.rooms.enter(conversation_id)
        try:
            async with room.lock:
                exchange = await self._pool.run(begin)
                if exchange.repeated:
                    return exchange
                if new_question:
                    room.put_message(exchange.question)
                room.put_message(exchange.answer)
                room.put_conversation(exchange.conversation)
                self._answer(room, exchange.answer.id)
            self._hub.conversation("upsert", room.conversation)
            return exchange
        finally:
            self.rooms.leave(room)

    def _answer(self, room: Room, message_id: str) -> None:
        room.users += 1
        answer = Answer(
            room,
            message_id,
            directory=self._directory,
            store=self._store,
            pool=self._pool,
            on_saved=partial(self._hub.conversation, "upsert"),
        )
        self._answers[message_id] = answer

        def ended(task: asyncio.Task[None]) -> None:
            del self._answers[message_id]
            self.rooms.leave(room)
            if not task.cancelled() and task.exception() is not None:
                log.error("answer %s was not ended properly", message_id, exc_info=task.exception())

        answer.done.add_done_callback(ended)

"""One answer being generated: a piece of work of the server, whoever looks or has gone away.

Two tasks: the inner one reads the gateway and may be cancelled (which frees the engine); the outer one watches it,
saves the text about once a second, and writes the end, however it came. Not for what is asked (``streams``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

from danlu.chat.directory import Directory
from danlu.chat.history import branch_to, prompt_for
from danlu.chat.pool import Pool
from danlu.chat.room import Room
from danlu.errors import DanluError
from danlu.serving.engine import Finish, Origin, Queued, Started, TextPiece
from danlu.serving.registry import Entry
from danlu.store.messages import storable
from danlu.store.records import Conversation, Message, MessageError, MessageStatus, Provenance
from danlu.store.store import Store

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
Ending = Literal["stopped", "interrupted"]


@dataclass
class _Measures:
    """What is known of an answer while it runs."""

    begun: float | None = None
    dropped_turns: int = 0
    tokens: int = 0
    reasoning_begun: float | None = None
    reasoning_seconds: float | None = None
    finish: Finish | None = None

    def text(self, piece: TextPiece) -> None:
        """Count a piece and watch when reasoning begins and ends."""
        self.tokens += piece.tokens
        now = time.monotonic()
        if piece.reasoning and self.reasoning_begun is None:
            self.reasoning_begun = self.begun
        if piece.content and self.reasoning_begun is not None and self.reasoning_seconds is None:
            self.reasoning_seconds = now - self.reasoning_begun

    def provenance(self, door: Entry) -> Provenance | None:
        """Return where the answer came from; None when it never began."""
        if self.begun is None:
            return None
        seconds = self.finish.seconds if self.finish else time.monotonic() - self.begun
        tokens = self.finish.completion_tokens if self.finish else self.tokens
        rate = self.finish.tokens_per_second if self.finish else (tokens / seconds if tokens > 1 else None)
        reasoning = self.finish.reasoning_seconds if self.finish else self.reasoning_seconds
        return Provenance(
            assistant=door.served.name,
            version=door.served.version_id,
            engine=door.served.spec.kind,
            tokens=tokens,
            tokens_per_second=None if rate is None else round(rate, 2),
            seconds=round(seconds, 3),
            finish_reason=self.finish.reason if self.finish else "cancelled",
            reasoning_seconds=None if reasoning is None else round(reasoning, 3),
            dropped_turns=self.dropped_turns,
        )


class Answer:
    """A running answer.

    Args:
        room: its conversation, held by whoever made this until ``done``.
        message_id: the message that it fills.
        directory: where the assistant's door is found; its refusal then stands in the message.
        store: where it is saved.
        pool: threads for the database.
        on_saved: told the conversation after the end is saved.
    """

    def __init__(
        self,
        room: Room,
        message_id: str,
        *,
        directory: Directory,
        store: Store,
        pool: Pool,
        on_saved: Callable[[Conversation], None],
    ) -> None:
        self.message_id = message_id
        self._room = room
        self._directory = directory
        self._store = store
        self._pool = pool
        self._on_saved = on_saved
        self._ending: Ending | None = None
        self._door: Entry | None = None
        self._measures = _Measures()
        self._work = asyncio.create_task(self._generate(), name=f"answer-{message_id}")
        self.done = asyncio.create_task(self._watch(), name=f"answer-watch-{message_id}")

    async def stop(self, ending: Ending) -> None:
        """End the generation now and wait until that is saved; one that has ended stays as it is."""
        if not self._work.done() and self._ending is None:
            self._ending = ending
            self._work.cancel()
        await asyncio.shield(self.done)

    @property
    def _message(self) -> Message:
        return self._room.messages[self.message_id]

    async def _generate(self) -> None:
        question = self._message.parent_id
        assert question is not None, "an answer has a question"
        door = self._door = self._directory.door(self._room.conversation.assistant_id)
        branch = branch_to(self._room.messages, question)
        prompt = await prompt_for(door, branch)
        self._measures.dropped_turns = prompt.dropped_turns
        origin = Origin(door.served.name, "chat", self.message_id)
        request = door.served.request(prompt.messages, origin=origin)
        async with aclosing(door.gateway.generate(request)) as events:
            async for event in events:
                match event:
                    case Queued():
                        self._room.queued(self.message_id, event.position, event.eta_seconds)
                    case Started():
                        self._measures.begun = time.monotonic()
                        self._room.set_status(self.message_id, "generating")
                    case TextPiece():
                        self._measures.text(event)
                        self._room.append(self.message_id, storable(event.content), storable(event.reasoning))
                    case Finish():
                        self._measures.finish = event

    async def _watch(self) -> None:
        saved = self._message
        while not self._work.done():
            await asyncio.wait({self._work}, timeout=FLUSH_SECONDS)
            if not self._work.done() and self._message is not saved:
                saved = self._message
                await self._save_text(saved)
        status, error = self._outcome()
        message = self._message.model_copy(
            update={"status": status, "error": error, "provenance": self._provenance(), "finished_at": None}
        )
        async with self._room.lock:
            try:
                conversation, message = await self._save(message)
            except DanluError as failure:
                log.exception("the end of answer %s could not be saved", self.message_id)
                conversation = self._room.conversation
                message = message.model_copy(update={"status": "failed", "error": MessageError.of(failure)})
            self._room.put_message(message)
            self._room.put_conversation(conversation)
            self._on_saved(self._room.conversation)

    def _outcome(self) -> tuple[MessageStatus, MessageError | None]:
        if self._work.cancelled():
            return self._ending or "interrupted", None
        error = self._work.exception()
        if error is None:
            return "complete", None
        if isinstance(error, DanluError):
            log.warning("answer %s failed: %s", self.message_id, error)
            return "failed", MessageError.of(error)
        log.error("answer %s failed", self.message_id, exc_info=error)
        return "failed", MessageError.of(DanluError("chat.unexpected"))

    def _provenance(self) -> Provenance | None:
        return None if self._door is None else self._measures.provenance(self._door)

    async def _save_text(self, message: Message) -> None:
        try:
            await self._save(message)
        except DanluError as failure:
            # The text is safe in memory and the next second tries again; the end reports what stays broken.
            log.warning("answer %s could not be saved yet: %s", self.message_id, failure)

    async def _save(self, message: Message) -> tuple[Conversation, Message]:
        return await self._pool.run(
            lambda: self._store.messages.save_answer(
                message.id,
                status=message.status,
                content=message.content,
                reasoning=message.reasoning,
                error=message.error,
                provenance=message.provenance,
            )
        )

"""Messages in the database: the tree of a conversation, and the life of an answer from its question to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from danlu.errors import ConflictError, NotFoundError
from danlu.store.clock import new_id, now
from danlu.store.conversations import live_row, read_conversation, touch
from danlu.store.database import Database
from danlu.store.records import (
    UNFINISHED,
    Conversation,
    Message,
    MessageError,
    MessageRole,
    MessageStatus,
    Provenance,
)
from danlu.store.tables import ConversationRow, MessageRow

_NUL: Final = "\x00"


@dataclass(frozen=True)
class Exchange:
    """A question and the answer begun for it, as they stand in the database.

    Attributes:
        conversation: the conversation after it.
        question: the person's message.
        answer: the assistant's message.
        repeated: the command had been carried out before; nothing was changed.
    """

    conversation: Conversation
    question: Message
    answer: Message
    repeated: bool


class MessageTable:
    """Reads and writes messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def thread(self, conversation_id: str, *, deleted: bool = False) -> tuple[Conversation, tuple[Message, ...]]:
        """Return a conversation and all its messages, oldest first, as of one moment.

        Raises:
            NotFoundError: no such conversation, or it is deleted (and ``deleted`` is not set).
        """
        statement = (
            select(MessageRow)
            .where(MessageRow.conversation_id == conversation_id)
            .order_by(MessageRow.created_at, MessageRow.id)
        )
        with self._database.read() as session:
            conversation = read_conversation(session, conversation_id, deleted=deleted)
            return conversation, tuple(_record(row) for row in session.scalars(statement))

    def begin_exchange(
        self, conversation_id: str, *, parent_id: str | None, client_id: str, content: str, title: str
    ) -> Exchange:
        """Add a question and its queued answer, or find them when ``client_id`` was used before.

        Args:
            conversation_id: where.
            parent_id: the answer that the question follows; None at the beginning.
            client_id: the sender's own name for the command.
            content: the question.
            title: given to a conversation that has none.

        Raises:
            NotFoundError: no such conversation or parent.
            ConflictError: ``client_id`` was used for something else, or the parent is not a finished answer.
        """
        return self._once_more(
            lambda: self._begin_exchange(
                conversation_id, parent_id=parent_id, client_id=client_id, content=content, title=title
            )
        )

    def _begin_exchange(
        self, conversation_id: str, *, parent_id: str | None, client_id: str, content: str, title: str
    ) -> Exchange:
        with self._database.write() as session:
            found = _by_client_id(session, client_id)
            if found is not None:
                answer = session.scalars(_first_child(found.id)).first()
                if found.role != "user" or found.conversation_id != conversation_id or answer is None:
                    raise ConflictError("store.client_id_reused")
                conversation = read_conversation(session, conversation_id)
                return Exchange(conversation, _record(found), _record(answer), repeated=True)
            row = live_row(session, conversation_id)
            if parent_id is not None:
                parent = _message(session, conversation_id, parent_id)
                if parent.role != "assistant":
                    raise ConflictError("store.parent_not_answer")
                if parent.status in UNFINISHED:
                    raise ConflictError("store.still_answering")
            question = _new(session, conversation_id, parent_id, "user", client_id=client_id, content=content)
            if not row.title:
                row.title = title
            answer = _begin_answer(session, row, question.id, client_id=None)
            return Exchange(
                read_conversation(session, conversation_id), _record(question), _record(answer), repeated=False
            )

    def begin_again(self, conversation_id: str, *, message_id: str, client_id: str) -> Exchange:
        """Add another answer beside the answer ``message_id``, or find it when ``client_id`` was used before.

        Raises:
            NotFoundError: no such conversation or message.
            ConflictError: ``client_id`` was used for something else, or the message is not a finished answer.
        """
        return self._once_more(lambda: self._begin_again(conversation_id, message_id=message_id, client_id=client_id))

    def _begin_again(self, conversation_id: str, *, message_id: str, client_id: str) -> Exchange:
        with self._database.write() as session:
            found = _by_client_id(session, client_id)
            if found is not None:
                if found.role != "assistant" or found.conversation_id != conversation_id or found.parent_id is None:
                    raise ConflictError("store.client_id_reused")
                question = _message(session, conversation_id, found.parent_id)
                conversation = read_conversation(session, conversation_id)
                return Exchange(conversation, _record(question), _record(found), repeated=True)
            row = live_row(session, conversation_id)
            earlier = _message(session, conversation_id, message_id)
            if earlier.role != "assistant" or earlier.parent_id is None:
                raise ConflictError("store.parent_not_answer")
            if earlier.status in UNFINISHED:
                raise ConflictError("store.still_answering")
            question = _message(session, conversation_id, earlier.parent_id)
            answer = _begin_answer(session, row, question.id, client_id=client_id)
            return Exchange(
                read_conversation(session, conversation_id), _record(question), _record(answer), repeated=False
            )

    def save_answer(
        self,
        message_id: str,
        *,
        status: MessageStatus,
        content: str,
        reasoning: str | None,
        error: MessageError | None = None,
        provenance: Provenance | None = None,
    ) -> tuple[Conversation, Message]:
        """Keep the state of an answer; one that ends also moves its conversation up in the list.

        Raises:
            NotFoundError: no such message.
        """
        moment = now()
        with self._database.write() as session:
            row = session.get(MessageRow, message_id)
            if row is None:
                raise NotFoundError("store.message_missing", id=message_id)
            row.status = status
            row.content = storable(content)
            row.reasoning = None if reasoning is None else storable(reasoning)
            row.error = None if error is None else error.model_dump(mode="json")
            row.provenance = None if provenance is None else provenance.model_dump(mode="json")
            if status not in UNFINISHED:
                row.finished_at = moment
                touch(session, row.conversation_id, moment)
            session.flush()
            return read_conversation(session, row.conversation_id, deleted=True), _record(row)

    @staticmethod
    def _once_more(work: Callable[[], Exchange]) -> Exchange:
        """Repeat work that met the same command at the same moment (PostgreSQL): now it finds what the other made."""
        try:
            return work()
        except ConflictError as error:
            if error.key != "store.conflict":
                raise
            return work()

    def interrupt_unfinished(self) -> int:
        """Mark every answer that is still waiting or being written as interrupted, its text kept.

        For the start of the one server that works on this database; return how many there were.
        """
        statement = (
            update(MessageRow)
            .where(MessageRow.status.in_(UNFINISHED))
            .values(status="interrupted", finished_at=now())
            .returning(MessageRow.id)
        )
        with self._database.write() as session:
            return len(session.execute(statement).all())


def storable(text: str) -> str:
    """Return the text without what no database keeps: NUL (PostgreSQL refuses it) and halves of surrogate pairs.

    Pieces of an answer go through this before anyone sees them, so that what is shown is what is kept.
    """
    return text.replace(_NUL, "").encode("utf-8", errors="replace").decode("utf-8")


def _by_client_id(session: Session, client_id: str) -> MessageRow | None:
    return session.scalar(select(MessageRow).where(MessageRow.client_id == client_id))


def _first_child(message_id: str) -> Select[MessageRow]:
    return (
        select(MessageRow)
        .where(MessageRow.parent_id == message_id)
        .order_by(MessageRow.created_at, MessageRow.id)
        .limit(1)
    )


def _message(session: Session, conversation_id: str, message_id: str) -> MessageRow:
    row = session.get(MessageRow, message_id)
    if row is None or row.conversation_id != conversation_id:
        raise NotFoundError("store.message_missing", id=message_id)
    return row


def _begin_answer(
    session: Session, conversation: ConversationRow, question_id: str, *, client_id: str | None
) -> MessageRow:
    answer = _new(session, conversation.id, question_id, "assistant", client_id=client_id, content="")
    conversation.leaf_id = answer.id
    conversation.updated_at = answer.created_at
    session.flush()
    return answer


def _new(
    session: Session,
    conversation_id: str,
    parent_id: str | None,
    role: MessageRole,
    *,
    client_id: str | None,
    content: str,
) -> MessageRow:
    moment = now()
    row = MessageRow(
        id=new_id(),
        conversation_id=conversation_id,
        parent_id=parent_id,
        client_id=client_id,
        role=role,
        status="complete" if role == "user" else "queued",
        content=storable(content),
        created_at=moment,
        finished_at=moment if role == "user" else None,
    )
    session.add(row)
    session.flush()
    return row


def _record(row: MessageRow) -> Message:
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        parent_id=row.parent_id,
        client_id=row.client_id,
        role=cast("MessageRole", row.role),
        status=cast("MessageStatus", row.status),
        content=row.content,
        reasoning=row.reasoning,
        error=None if row.error is None else MessageError.model_validate(row.error),
        provenance=None if row.provenance is None else Provenance.model_validate(row.provenance),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )

"""Conversations in the database: list, search, create, change, delete and restore."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime, timedelta

from sqlalchemy import Boolean, ColumnElement, Select, exists, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session

from danlu.errors import NotFoundError, UsageError
from danlu.store.clock import new_id, now
from danlu.store.database import Database
from danlu.store.records import UNFINISHED, Conversation, ConversationPage
from danlu.store.tables import AssistantRow, ConversationRow, MessageRow, UtcDateTime


class ConversationTable:
    """Reads and writes conversations; deleted ones are kept, hidden, until a later clean-up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, *, query: str = "", limit: int = 50, cursor: str | None = None) -> ConversationPage:
        """Return some conversations, pinned first, then newest.

        Args:
            query: words to find in titles and messages; empty for all.
            limit: most to return.
            cursor: ``next_cursor`` of the page before.

        Raises:
            UsageError: the cursor is not one of ours.
        """
        statement = _conversations().where(ConversationRow.deleted_at.is_(None))
        if query.strip():
            statement = statement.where(_mentions(query.strip()))
        order = (ConversationRow.pinned, ConversationRow.updated_at, ConversationRow.id)
        if cursor is not None:
            pinned, updated_at, identity = _read_cursor(cursor)
            here = tuple_(literal(pinned, Boolean()), literal(updated_at, UtcDateTime()), literal(identity))
            statement = statement.where(tuple_(*order) < here)
        statement = statement.order_by(*(column.desc() for column in order)).limit(limit + 1)
        with self._database.read() as session:
            found = [_record(row, generating) for row, generating in session.execute(statement)]
        return ConversationPage(
            items=tuple(found[:limit]), next_cursor=_cursor(found[limit - 1]) if len(found) > limit else None
        )

    def get(self, conversation_id: str, *, deleted: bool = False) -> Conversation:
        """Return one conversation.

        Raises:
            NotFoundError: there is none of this id, or it is deleted (and ``deleted`` is not set).
        """
        with self._database.read() as session:
            return read_conversation(session, conversation_id, deleted=deleted)

    def create(self, assistant_id: str) -> Conversation:
        """Begin an empty conversation with an assistant.

        Raises:
            NotFoundError: no such assistant.
        """
        moment = now()
        with self._database.write() as session:
            if session.get(AssistantRow, assistant_id) is None:
                raise NotFoundError("store.assistant_missing", id=assistant_id)
            row = ConversationRow(
                id=new_id(), assistant_id=assistant_id, title="", pinned=False, created_at=moment, updated_at=moment
            )
            session.add(row)
            session.flush()
            return _record(row, generating=False)

    def change(
        self, conversation_id: str, *, title: str | None = None, pinned: bool | None = None, leaf_id: str | None = None
    ) -> Conversation:
        """Change what is not None; the place in the list stays, because nothing was said.

        Raises:
            NotFoundError: no such conversation, or ``leaf_id`` is not one of its messages.
        """
        with self._database.write() as session:
            row = live_row(session, conversation_id)
            if title is not None:
                row.title = title
            if pinned is not None:
                row.pinned = pinned
            if leaf_id is not None:
                leaf = session.get(MessageRow, leaf_id)
                if leaf is None or leaf.conversation_id != conversation_id:
                    raise NotFoundError("store.message_missing", id=leaf_id)
                row.leaf_id = leaf_id
            session.flush()
            return read_conversation(session, conversation_id)

    def delete(self, conversation_id: str) -> Conversation:
        """Hide a conversation; ``restore`` brings it back.

        Raises:
            NotFoundError: no such conversation.
        """
        with self._database.write() as session:
            live_row(session, conversation_id).deleted_at = now()
            session.flush()
            return read_conversation(session, conversation_id, deleted=True)

    def restore(self, conversation_id: str) -> Conversation:
        """Bring a deleted conversation back; one that is not deleted stays as it is.

        Raises:
            NotFoundError: no such conversation.
        """
        with self._database.write() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is None:
                raise NotFoundError("store.conversation_missing", id=conversation_id)
            row.deleted_at = None
            session.flush()
            return read_conversation(session, conversation_id)

    def purge(self, *, deleted_before: datetime) -> int:
        """Remove for good what was deleted before a moment; return how many conversations."""
        old = select(ConversationRow).where(ConversationRow.deleted_at < deleted_before)
        with self._database.write() as session:
            rows = session.scalars(old).all()
            for row in rows:
                # Messages go with it by the foreign key's rule.
                session.delete(row)
            return len(rows)


def live_row(session: Session, conversation_id: str) -> ConversationRow:
    """Return the row of a conversation that is not deleted.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(ConversationRow, conversation_id)
    if row is None or row.deleted_at is not None:
        raise NotFoundError("store.conversation_missing", id=conversation_id)
    return row


def read_conversation(session: Session, conversation_id: str, *, deleted: bool = False) -> Conversation:
    """Return one conversation as a record.

    Raises:
        NotFoundError: there is none, or it is deleted (and ``deleted`` is not set).
    """
    found = session.execute(_conversations().where(ConversationRow.id == conversation_id)).first()
    if found is None or (found[0].deleted_at is not None and not deleted):
        raise NotFoundError("store.conversation_missing", id=conversation_id)
    return _record(found[0], found[1])


def touch(session: Session, conversation_id: str, moment: datetime) -> None:
    """Note that something was said in a conversation."""
    session.execute(update(ConversationRow).where(ConversationRow.id == conversation_id).values(updated_at=moment))


def _conversations() -> Select[ConversationRow, bool]:
    generating = exists().where(MessageRow.conversation_id == ConversationRow.id, MessageRow.status.in_(UNFINISHED))
    return select(ConversationRow, generating)


def _mentions(query: str) -> ColumnElement[bool]:
    in_messages = exists().where(
        MessageRow.conversation_id == ConversationRow.id, MessageRow.content.icontains(query, autoescape=True)
    )
    return or_(ConversationRow.title.icontains(query, autoescape=True), in_messages)


def _cursor(last: Conversation) -> str:
    value = [last.pinned, last.updated_at.isoformat(), last.id]
    return base64.urlsafe_b64encode(json.dumps(value).encode("utf-8")).decode("ascii")


def _read_cursor(cursor: str) -> tuple[bool, datetime, str]:
    try:
        pinned, updated_at, identity = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        moment = datetime.fromisoformat(updated_at)
    except (ValueError, TypeError, binascii.Error) as error:
        raise UsageError("store.bad_cursor") from error
    if not isinstance(pinned, bool) or not isinstance(identity, str) or moment.utcoffset() != timedelta(0):
        raise UsageError("store.bad_cursor")
    return pinned, moment, identity


def _record(row: ConversationRow, generating: bool) -> Conversation:
    return Conversation(
        id=row.id,
        assistant_id=row.assistant_id,
        title=row.title,
        pinned=row.pinned,
        leaf_id=row.leaf_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        generating=generating,
    )

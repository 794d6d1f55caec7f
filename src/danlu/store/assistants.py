"""Assistants in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from danlu.errors import NotFoundError
from danlu.models.versions import GenerationDefaults
from danlu.store.clock import new_id, now
from danlu.store.database import Database
from danlu.store.records import Assistant, AssistantVersion
from danlu.store.tables import AssistantRow, AssistantVersionRow, ConversationRow


class AssistantTable:
    """Reads and writes assistants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> tuple[Assistant, ...]:
        """Return all assistants, the one changed last first: what was just made is what people want to meet."""
        with self._database.read() as session:
            rows = session.scalars(select(AssistantRow).order_by(AssistantRow.updated_at.desc(), AssistantRow.id))
            return tuple(_record(row) for row in rows)

    def revision(self) -> str:
        """Return a text that is another one after every change of any assistant; cheap enough to ask every second."""
        with self._database.read() as session:
            count, last = session.execute(select(func.count(), func.max(AssistantRow.updated_at))).one()
            return f"{count} {last}"

    def get(self, assistant_id: str) -> Assistant:
        """Return one assistant.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._database.read() as session:
            row = session.get(AssistantRow, assistant_id)
            if row is None:
                raise NotFoundError("store.assistant_missing", id=assistant_id)
            return _record(row)

    def put(
        self,
        name: str,
        *,
        version_id: str,
        engine: str,
        system: str,
        greeting: str,
        suggestions: Sequence[str],
        generation: GenerationDefaults,
    ) -> Assistant:
        """Create the assistant ``name``, or give the existing one these values; its id and conversations stay."""
        with self._database.write() as session:
            row = session.scalar(select(AssistantRow).where(AssistantRow.name == name))
            moment = now()
            if row is None:
                row = AssistantRow(id=new_id(), name=name, created_at=moment)
                session.add(row)
            changed = row.version_id != version_id or row.engine != engine
            row.version_id = version_id
            row.engine = engine
            row.system = system
            row.greeting = greeting
            row.suggestions = list(suggestions)
            row.generation = generation.model_dump(mode="json")
            row.updated_at = moment
            session.flush()
            if changed:
                _note_version(session, row, moment)
            return _record(row)

    def named(self, name: str) -> Assistant:
        """Return the assistant of a name.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as session:
            return _record(_named(session, name))

    def promote(self, name: str, version_id: str, engine: str) -> Assistant:
        """Give an assistant another version; everything else stays.

        Raises:
            NotFoundError: there is no such assistant.
        """
        with self._database.write() as session:
            row = _named(session, name)
            row.version_id, row.engine, row.updated_at = version_id, engine, now()
            session.flush()
            _note_version(session, row, row.updated_at)
            return _record(row)

    def history(self, name: str) -> tuple[AssistantVersion, ...]:
        """Return the versions that an assistant has had, the first one first.

        Raises:
            NotFoundError: there is no such assistant.
        """
        with self._database.read() as session:
            rows = session.scalars(
                select(AssistantVersionRow)
                .where(AssistantVersionRow.assistant_id == _named(session, name).id)
                .order_by(AssistantVersionRow.number)
            )
            return tuple(
                AssistantVersion(number=row.number, version_id=row.version_id, engine=row.engine, put_at=row.put_at)
                for row in rows
            )

    def remove(self, name: str) -> int:
        """Forget an assistant and its conversations.

        Returns:
            how many conversations went with it.

        Raises:
            NotFoundError: there is no such assistant.
        """
        with self._database.write() as session:
            row = _named(session, name)
            conversations = session.execute(delete(ConversationRow).where(ConversationRow.assistant_id == row.id))
            session.delete(row)
            return conversations.rowcount  # type: ignore[attr-defined,no-any-return]

    def conversations(self, name: str) -> int:
        """Return how many conversations people have with an assistant.

        Raises:
            NotFoundError: there is no such assistant.
        """
        with self._database.read() as session:
            row = _named(session, name)
            counted = select(func.count()).where(ConversationRow.assistant_id == row.id)
            return session.scalar(counted) or 0


def _named(session: Session, name: str) -> AssistantRow:
    row = session.scalar(select(AssistantRow).where(AssistantRow.name == name))
    if row is None:
        names = ", ".join(session.scalars(select(AssistantRow.name).order_by(AssistantRow.name))) or "–"
        raise NotFoundError("store.no_such_assistant", name=name, names=names)
    return row


def _note_version(session: Session, row: AssistantRow, moment: datetime) -> None:
    last = session.scalar(
        select(func.max(AssistantVersionRow.number)).where(AssistantVersionRow.assistant_id == row.id)
    )
    session.add(
        AssistantVersionRow(
            assistant_id=row.id, number=(last or 0) + 1, version_id=row.version_id, engine=row.engine, put_at=moment
        )
    )


def _record(row: AssistantRow) -> Assistant:
    return Assistant(
        id=row.id,
        name=row.name,
        version_id=row.version_id,
        engine=row.engine,
        system=row.system,
        greeting=row.greeting,
        suggestions=tuple(row.suggestions),
        generation=GenerationDefaults.model_validate(row.generation),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

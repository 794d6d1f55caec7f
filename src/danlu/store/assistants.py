"""Assistants in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from danlu.errors import NotFoundError
from danlu.models.versions import GenerationDefaults
from danlu.store.clock import new_id, now
from danlu.store.database import Database
from danlu.store.records import Assistant
from danlu.store.tables import AssistantRow


class AssistantTable:
    """Reads and writes assistants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> tuple[Assistant, ...]:
        """Return all assistants, the one changed last first: what was just made is what people want to meet."""
        with self._database.read() as session:
            rows = session.scalars(select(AssistantRow).order_by(AssistantRow.updated_at.desc(), AssistantRow.id))
            return tuple(_record(row) for row in rows)

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
            row.version_id = version_id
            row.engine = engine
            row.system = system
            row.greeting = greeting
            row.suggestions = list(suggestions)
            row.generation = generation.model_dump(mode="json")
            row.updated_at = moment
            session.flush()
            return _record(row)


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

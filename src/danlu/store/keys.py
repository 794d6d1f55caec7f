"""API keys in the database, and what they have used day by day. The keys themselves never come here."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from danlu.errors import ConflictError, NotFoundError
from danlu.store.clock import new_id, now
from danlu.store.database import Database
from danlu.store.records import ApiKey, KeyUsage
from danlu.store.tables import ApiKeyRow, KeyUsageRow


class KeyTable:
    """Reads and writes keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        name: str,
        *,
        digest: str,
        hint: str,
        assistants: tuple[str, ...] | None,
        requests_per_minute: int | None,
        tokens_per_day: int | None,
        expires_at: datetime | None,
    ) -> ApiKey:
        """Keep a new key.

        Args:
            name: what people call it.
            digest: SHA-256 of the key, 64 hex digits.
            hint: its beginning.
            assistants: names that it may call; None for all.
            requests_per_minute: None for no bound.
            tokens_per_day: None for no bound.
            expires_at: None for never.

        Raises:
            ConflictError: there is one of this name.
        """
        with self._database.write() as session:
            if session.scalar(select(ApiKeyRow.id).where(ApiKeyRow.name == name)) is not None:
                raise ConflictError("keys.name_taken", name=name)
            row = ApiKeyRow(
                id=new_id(),
                name=name,
                digest=digest,
                hint=hint,
                assistants=None if assistants is None else list(assistants),
                requests_per_minute=requests_per_minute,
                tokens_per_day=tokens_per_day,
                created_at=now(),
                expires_at=expires_at,
                revoked_at=None,
                last_used_at=None,
            )
            session.add(row)
            session.flush()
            return _record(row)

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, the oldest first, revoked ones too."""
        with self._database.read() as session:
            return tuple(_record(row) for row in session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at)))

    def by_digest(self, digest: str) -> ApiKey | None:
        """Return the key of a SHA-256; None when there is none."""
        with self._database.read() as session:
            row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.digest == digest))
            return None if row is None else _record(row)

    def any(self) -> bool:
        """Say whether there is a key, be it revoked or expired."""
        with self._database.read() as session:
            return session.scalar(select(ApiKeyRow.id).limit(1)) is not None

    def revoke(self, name: str) -> ApiKey:
        """Refuse a key from now on; harmless twice.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._database.write() as session:
            row = _named(session, name)
            row.revoked_at = row.revoked_at or now()
            session.flush()
            return _record(row)

    def remove(self, name: str) -> None:
        """Forget a key and what it has used.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._database.write() as session:
            session.delete(_named(session, name))

    def use(self, key_id: str, day: date, *, requests: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Add to what a key has used on a day; nothing for a key that is forgotten."""
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        added = insert(KeyUsageRow).values(
            key_id=key_id, day=day, requests=requests, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )
        summed = added.on_conflict_do_update(
            index_elements=[KeyUsageRow.key_id, KeyUsageRow.day],
            set_={
                "requests": KeyUsageRow.requests + added.excluded.requests,
                "prompt_tokens": KeyUsageRow.prompt_tokens + added.excluded.prompt_tokens,
                "completion_tokens": KeyUsageRow.completion_tokens + added.excluded.completion_tokens,
            },
        )
        with self._database.write() as session:
            row = session.get(ApiKeyRow, key_id)
            if row is None:
                return
            row.last_used_at = now()
            session.execute(summed)

    def tokens_on(self, key_id: str, day: date) -> int:
        """Return the tokens that a key has read and written on a day."""
        with self._database.read() as session:
            row = session.get(KeyUsageRow, (key_id, day))
            return 0 if row is None else row.prompt_tokens + row.completion_tokens

    def usage(self, *, days: int) -> tuple[KeyUsage, ...]:
        """Return what was used on the last days, today included, by day and key."""
        since = now().date() - timedelta(days=days - 1)
        with self._database.read() as session:
            rows = session.scalars(
                select(KeyUsageRow).where(KeyUsageRow.day >= since).order_by(KeyUsageRow.day, KeyUsageRow.key_id)
            )
            return tuple(
                KeyUsage(
                    key_id=row.key_id,
                    day=row.day,
                    requests=row.requests,
                    prompt_tokens=row.prompt_tokens,
                    completion_tokens=row.completion_tokens,
                )
                for row in rows
            )


def _named(session: Session, name: str) -> ApiKeyRow:
    row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.name == name))
    if row is None:
        raise NotFoundError("keys.missing", name=name)
    return row


def _record(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        hint=row.hint,
        assistants=None if row.assistants is None else tuple(row.assistants),
        requests_per_minute=row.requests_per_minute,
        tokens_per_day=row.tokens_per_day,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )

"""One way to SQLite and PostgreSQL: the engine, and transactions for reading and for writing.

SQLite: write-ahead log, foreign keys, one writer at a time, and transactions that take the write lock at their
beginning, so that two of them wait for one another instead of failing in the middle. Not for tables (``tables``) nor
for their changes (``migrate``).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from danlu.errors import ConflictError, DanluError, MachineError, StoreError
from danlu.files import format_bytes, free_bytes

_BUSY_SECONDS: Final = 10
_POOL_SIZE: Final = 8
_WRITES: Final = "danlu_writes"


class Database:
    """An open database.

    Args:
        url: SQLAlchemy's address of it.
        busy_seconds: how long SQLite waits for another program that writes.

    Raises:
        StoreError: the address cannot be used, or the driver is not installed.
    """

    def __init__(self, url: URL, busy_seconds: float = _BUSY_SECONDS) -> None:
        self.url = url
        self._busy_seconds = busy_seconds
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.path = Path(url.database) if self.is_sqlite and url.database else None
        self._engine = _make_engine(url, busy_seconds, foreign_keys=True)
        # Waiting here is fair and costs nothing; SQLite's own waiting polls. Other processes still meet that one.
        self._writer = threading.Lock() if self.is_sqlite else nullcontext()

    @classmethod
    def at(cls, home_database: Path, database_url: str | None) -> Database:
        """Open the database of a home folder: ``database_url`` when given, the built-in SQLite file otherwise.

        Raises:
            StoreError: the address cannot be used, or the driver is not installed.
        """
        if database_url is None:
            return cls(URL.create("sqlite", database=str(home_database)))
        try:
            url = make_url(database_url)
        except ArgumentError as error:
            raise StoreError("store.bad_url") from error
        if url.get_backend_name() not in {"sqlite", "postgresql"}:
            raise StoreError("store.unsupported_database", kind=url.get_backend_name())
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        return cls(url)

    @property
    def place(self) -> str:
        """Where the database is, for people; without any password."""
        return str(self.path) if self.path is not None else self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session that sees one moment of the database; nothing is kept of what is changed in it."""
        with self._errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session whose changes are kept together when the code inside ends well, or not at all."""
        writing = self._engine.execution_options(**{_WRITES: True})
        with self._errors(), self._writer, Session(writing) as session, session.begin():
            yield session

    @contextmanager
    def migration_connection(self) -> Iterator[Connection]:
        """Give a connection for changing tables, with foreign keys off (SQLite copies tables to change them)."""
        engine = _make_engine(self.url, self._busy_seconds, foreign_keys=False)
        try:
            with self._errors(), engine.connect().execution_options(**{_WRITES: True}) as connection:
                yield connection
        finally:
            engine.dispose()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error) from error

    def _explain(self, error: DBAPIError) -> DanluError:
        if isinstance(error, IntegrityError):
            return ConflictError("store.conflict")
        reason = str(error.orig or error).strip().splitlines()[0] if str(error.orig or error).strip() else repr(error)
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None and self.path is not None:
            primary = code & 0xFF
            if primary == sqlite3.SQLITE_FULL:
                return MachineError("ground.disk_full", str(self.path), free=format_bytes(free_bytes(self.path)))
            if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                return StoreError("store.locked", str(self.path))
            if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                return StoreError("store.damaged", str(self.path), reason=reason)
        return StoreError("store.unavailable", self.place, reason=reason)


def _make_engine(url: URL, busy_seconds: float, *, foreign_keys: bool) -> Engine:
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(
                url,
                pool_size=_POOL_SIZE,
                max_overflow=0,
                connect_args={"timeout": busy_seconds, "check_same_thread": False},
            )
            _prepare_sqlite(engine, foreign_keys=foreign_keys)
            return engine
        return create_engine(url, pool_size=_POOL_SIZE, max_overflow=0, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError("store.driver_missing") from error


def _prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        # Python's driver would begin transactions by itself, and too late; ``begun`` below does it.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # In the write-ahead log NORMAL cannot damage the file; a power cut may lose the last moments.
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)

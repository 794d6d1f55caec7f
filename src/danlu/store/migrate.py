"""Bring the tables of a database to the shape this program needs, once, under a lock, with a copy kept before.

Each change is a file in ``migrations/versions``; all that are missing are applied in one transaction, so that a
database is either as before or as needed, never between. A database of a newer program is refused.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from sqlalchemy import Connection, text

from danlu import __version__
from danlu.errors import MachineError, StoreError
from danlu.files import require_free
from danlu.store.database import Database

log = logging.getLogger(__name__)

_LOCK_SECONDS: Final = 120
_ADVISORY_KEY: Final = 0x44414E4C55  # "DANLU"; any fixed number that nobody else uses
_BACKUPS_KEPT: Final = 10


def migrate(database: Database, migrations: Path | None = None) -> None:
    """Apply the migrations that are missing.

    Args:
        database: to be changed.
        migrations: folder of another history of tables; the one of this program when None.

    Raises:
        StoreError: the database is of a newer program, damaged, or another process is changing it and does not end.
        MachineError: no room for the copy.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells every look at the version
    with as_file(files("danlu.store").joinpath("migrations")) as folder, _alone(database):
        config = Config()
        config.set_main_option("script_location", str(migrations or folder).replace("%", "%%"))
        known = ScriptDirectory.from_config(config)
        with database.migration_connection() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
        if current is not None and current not in {script.revision for script in known.walk_revisions()}:
            raise StoreError("store.newer_schema", database.place, revision=current)
        head = known.get_current_head()
        if current == head:
            return
        if current is not None and database.path is not None:
            back_up(database.path, f"before-{head}")
        log.info("changing the tables of %s from %s to %s", database.place, current, head)
        with database.migration_connection() as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _check_references(database, connection)
            _note_program(connection)


def back_up(path: Path, label: str) -> Path:
    """Copy a SQLite database that may be in use into ``backups/`` beside it; the newest ten copies are kept.

    Returns:
        the copy.

    Raises:
        MachineError: not enough room on the disk.
    """
    folder = path.parent / "backups"
    folder.mkdir(exist_ok=True)
    require_free(folder, 2 * path.stat().st_size)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = folder / f"{path.stem}-{stamp}-{label}.db"
    partial = target.with_suffix(".part")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        partial.replace(target)
    except sqlite3.Error as error:
        raise StoreError("store.backup_failed", str(target), reason=str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    for old in sorted(folder.glob(f"{path.stem}-*.db"))[:-_BACKUPS_KEPT]:
        old.unlink()
    return target


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Let one process at a time look at the tables' version and change them."""
    if database.path is not None:
        lock = FileLock(f"{database.path}.migrating", fallback_to_soft=False)
        try:
            database.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout as error:
            raise StoreError("store.migration_running", database.place) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise MachineError("ground.home_not_writable", str(database.path.parent), reason=reason) from error
        try:
            yield
        finally:
            lock.release()
        return
    with database.migration_connection() as connection:
        connection.execute(text("SELECT set_config('lock_timeout', :wait, false)"), {"wait": f"{_LOCK_SECONDS}s"})
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_KEY})
        connection.commit()
        try:
            yield
        finally:
            # Connections of a migration are not pooled: closing this one also gives the lock free.
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_KEY})
            connection.commit()


def _check_references(database: Database, connection: Connection) -> None:
    if database.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise StoreError("store.damaged", database.place, reason="foreign_key_check")


def _note_program(connection: Connection) -> None:
    connection.execute(text("DELETE FROM app_meta WHERE key = 'migrated_by'"))
    connection.execute(text("INSERT INTO app_meta (key, value) VALUES ('migrated_by', :v)"), {"v": __version__})

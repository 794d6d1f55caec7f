from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from danlu.errors import StoreError
from danlu.store.database import Database
from danlu.store.migrate import migrate
from danlu.store.store import Store
from danlu.store.tables import Base
from tests.store.conftest import make_assistant

NEXT = '''
"""A later change."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("conversations") as table:
        table.add_column(sa.Column("mood", sa.Text(), nullable=False, server_default="calm"))
        table.alter_column("title", new_column_name="heading")
    {more}
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A history of tables with one more step."""
    folder = tmp_path / "later"
    shutil.copytree(Path(str(files("danlu.store"))) / "migrations", folder)
    (folder / "versions" / "0003_later.py").write_text(NEXT.format(more=""), encoding="utf-8")
    return folder


def open_database(tmp_path: Path, url: str | None) -> Database:
    return Database.at(tmp_path / "danlu.db", url)


def test_the_migrations_make_exactly_the_tables_of_the_program(fresh_store: Store) -> None:
    with fresh_store.database.migration_connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_opening_again_changes_nothing(fresh_store: Store) -> None:
    assistant = make_assistant(fresh_store)
    migrate(fresh_store.database)
    assert fresh_store.assistants.list() == (assistant,)


def test_a_database_of_a_newer_program_is_refused_and_left_alone(
    tmp_path: Path, fresh_store: Store, later: Path, database_url: str | None
) -> None:
    migrate(fresh_store.database, later)
    with pytest.raises(StoreError) as caught:
        Store.open(tmp_path / "danlu.db", database_url)
    assert caught.value.key == "store.newer_schema"
    assert "0003" in caught.value.message("en")
    with fresh_store.database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0003"


def test_a_later_step_keeps_the_rows(fresh_store: Store, later: Path) -> None:
    conversation = fresh_store.conversations.create(make_assistant(fresh_store).id)
    fresh_store.messages.begin_exchange(conversation.id, parent_id=None, client_id="k", content="hello", title="T")
    migrate(fresh_store.database, later)
    with fresh_store.database.read() as session:
        assert session.execute(text("SELECT id, heading, mood FROM conversations")).all() == [
            (conversation.id, "T", "calm")
        ]
        assert session.scalar(text("SELECT count(*) FROM messages")) == 2


def test_a_copy_of_the_file_is_kept_before_a_change(tmp_path: Path, later: Path) -> None:
    with Store.open(tmp_path / "danlu.db") as store:
        assert not (tmp_path / "backups").exists(), "a new database needs no copy"
        assistant = make_assistant(store)
        migrate(store.database, later)
    (copy,) = (tmp_path / "backups").glob("*.db")
    with Store.open(copy) as kept:
        assert kept.assistants.list() == (assistant,)


def test_a_step_that_fails_leaves_the_database_as_it_was(fresh_store: Store, later: Path) -> None:
    conversation = fresh_store.conversations.create(make_assistant(fresh_store).id)
    more = 'op.execute("INSERT INTO no_such_table VALUES (1)")'
    (later / "versions" / "0003_later.py").write_text(NEXT.format(more=more), encoding="utf-8")
    with pytest.raises(StoreError):
        migrate(fresh_store.database, later)
    with fresh_store.database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0002"
    assert fresh_store.conversations.get(conversation.id) == conversation


def test_a_step_that_breaks_a_reference_is_undone(tmp_path: Path, later: Path) -> None:
    with Store.open(tmp_path / "danlu.db") as store:
        conversation = store.conversations.create(make_assistant(store).id)
        more = 'op.execute("DELETE FROM assistants")'
        (later / "versions" / "0003_later.py").write_text(NEXT.format(more=more), encoding="utf-8")
        with pytest.raises(StoreError, match="foreign_key_check"):
            migrate(store.database, later)
        assert store.conversations.get(conversation.id) == conversation


def test_many_programs_that_open_a_new_database_at_once_all_succeed(tmp_path: Path, database_url: str | None) -> None:
    def work(_: int) -> None:
        Store.open(tmp_path / "danlu.db", database_url).close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_a_folder_with_a_percent_sign_can_be_migrated(tmp_path: Path) -> None:
    Store.open(tmp_path / "100% mine" / "danlu.db").close()


def test_the_file_is_plain_sqlite_in_write_ahead_mode(tmp_path: Path) -> None:
    Store.open(tmp_path / "danlu.db").close()
    with sqlite3.connect(tmp_path / "danlu.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

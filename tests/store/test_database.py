from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from danlu.errors import ConflictError, DanluError, MachineError, StoreError
from danlu.store.database import Database
from danlu.store.migrate import migrate
from danlu.store.store import Store
from tests.store.conftest import make_assistant


def refusal(*arguments) -> DanluError:
    with pytest.raises(DanluError) as caught:
        Store.open(*arguments)
    assert caught.value.message("en")
    assert caught.value.message("zh")
    return caught.value


def test_an_address_that_is_none_is_refused_without_repeating_its_password(tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.db", "postgresql:/secret@@host::1")
    assert error.key == "store.bad_url"
    assert "secret" not in error.message("en")


def test_other_databases_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.db", "mysql://root@host/name").key == "store.unsupported_database"


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    error = refusal(tmp_path / "x.db", "postgresql://me:hunter2@127.0.0.1:1/none")
    assert error.key == "store.unavailable"
    assert "hunter2" not in error.message("en")
    assert "127.0.0.1" in error.message("en")


def test_without_the_driver_one_is_told_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = refusal(tmp_path / "x.db", "postgresql://me@127.0.0.1:1/none")
    assert error.key == "store.driver_missing"
    assert "danlu[postgres]" in error.fix("en")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "danlu.db"
    path.write_bytes(b"this is not a database at all" * 100)
    assert refusal(path).key == "store.damaged"
    assert path.read_bytes().startswith(b"this is not")


def test_a_folder_that_cannot_be_made_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert refusal(tmp_path / "file" / "danlu.db").key == "ground.home_not_writable"


def test_another_program_that_keeps_the_file_locked_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "danlu.db"
    database = Database(URL.create("sqlite", database=str(path)), busy_seconds=0.1)
    migrate(database)
    store = Store(database)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            make_assistant(store)
        assert caught.value.key == "store.locked"
        assert store.assistants.list() == (), "reading goes on while another one writes"
    make_assistant(store)
    store.close()


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "danlu.db") as store:
        assistant = make_assistant(store)

        def fill() -> None:
            with store.database.write() as session:
                pages = session.scalar(text("PRAGMA page_count"))
                session.execute(text(f"PRAGMA max_page_count={pages + 2}"))
                session.execute(text("UPDATE assistants SET greeting = :text"), {"text": "x" * 1_000_000})

        with pytest.raises(MachineError) as caught:
            fill()
        assert caught.value.key == "ground.disk_full"
        assert store.assistants.list() == (assistant,)


def test_foreign_keys_are_enforced(store: Store) -> None:
    with pytest.raises(ConflictError), store.database.write() as session:
        session.execute(
            text(
                "INSERT INTO conversations (id, assistant_id, title, pinned, created_at, updated_at) "
                "VALUES ('c', 'nobody', '', false, :now, :now)"
            ),
            {"now": "2026-01-01 00:00:00"},
        )


def test_an_error_inside_a_transaction_undoes_it(store: Store) -> None:
    def break_off() -> None:
        with store.database.write() as session:
            session.execute(text("INSERT INTO app_meta (key, value) VALUES ('a', 'b')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    with store.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM app_meta WHERE key = 'a'")) == 0

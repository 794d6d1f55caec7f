from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from danlu.models.versions import GenerationDefaults
from danlu.store.records import Assistant
from danlu.store.store import Store
from tests.store.postgres import cluster, fresh_database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None stands for the built-in SQLite file."""
    if request.param == "sqlite":
        yield None
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One database for all tests that leave its tables as they are: making a new one takes most of a second."""
    path = tmp_path_factory.mktemp("postgres") / "unused.db"
    with fresh_database(postgres_server) as url, Store.open(path, url) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    if request.param == "sqlite":
        with Store.open(tmp_path / "danlu.db") as opened:
            yield opened
        return
    shared: Store = request.getfixturevalue("shared_postgres")
    with shared.database.write() as session:
        session.execute(text("TRUNCATE assistants, conversations, messages, assistant_versions, api_keys, key_usage"))
    yield shared


@pytest.fixture
def fresh_store(tmp_path: Path, database_url: str | None) -> Iterator[Store]:
    """A store whose tables the test may change."""
    with Store.open(tmp_path / "danlu.db", database_url) as opened:
        yield opened


@pytest.fixture
def assistant(store: Store) -> Assistant:
    return make_assistant(store)


def make_assistant(store: Store, name: str = "小丹") -> Assistant:
    return store.assistants.put(
        name,
        version_id="v1",
        engine="auto",
        system="",
        greeting="你好",
        suggestions=["你是谁?"],
        generation=GenerationDefaults(),
    )

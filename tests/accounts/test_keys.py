"""Keys: what is kept of them, what they open, and what bounds them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from danlu.accounts.errors import NoKeyError, QuotaError
from danlu.accounts.keys import KeyRing, create_key, digest_of
from danlu.errors import ConflictError, NotFoundError, UsageError
from danlu.store.store import Store
from tests.store.conftest import make_assistant, postgres_server, shared_postgres, store

__all__ = ["postgres_server", "shared_postgres", "store"]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(store: Store, clock: Clock) -> KeyRing:
    return KeyRing(store, clock)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "danlu.db") as opened:
        yield opened


def test_a_key_is_shown_once_and_kept_nowhere(sqlite: Store, tmp_path: Path) -> None:
    made = create_key(sqlite, "website")
    assert made.secret.startswith("dk-")
    assert len(made.secret) > 40
    assert made.secret.startswith(made.key.hint)
    assert made.secret != create_key(sqlite, "other").secret
    dump = "\n".join(sqlite3.connect(tmp_path / "danlu.db").iterdump())
    assert made.secret not in dump
    assert digest_of(made.secret) in dump


def test_a_key_that_makes_no_sense_is_refused(sqlite: Store) -> None:
    create_key(sqlite, "website")
    with pytest.raises(ConflictError):
        create_key(sqlite, "website")
    with pytest.raises(UsageError):
        create_key(sqlite, "  ")
    with pytest.raises(UsageError):
        create_key(sqlite, "b", requests_per_minute=0)
    with pytest.raises(NotFoundError):
        create_key(sqlite, "b", assistants=("nobody",))
    assert [key.name for key in sqlite.keys.list()] == ["website"]


def test_only_keys_of_this_server_that_are_valid_open_it(ring: KeyRing, store: Store, clock: Clock) -> None:
    make_assistant(store)
    assert not ring.needed()
    made = create_key(store, "website", days=30)
    assert ring.known_needed() is False
    clock.seconds += 3
    assert ring.known_needed() is None
    assert ring.needed()
    assert ring.check(made.secret) == made.key
    for wrong in ("", "dk-", made.secret[:-1], made.secret + "x", "ключ", "\ud800"):
        with pytest.raises(NoKeyError) as unknown:
            ring.check(wrong)
        assert unknown.value.key == "keys.unknown"
    store.keys.revoke("website")
    clock.seconds += 3
    with pytest.raises(NoKeyError) as revoked:
        ring.check(made.secret)
    assert revoked.value.key == "keys.revoked"
    assert ring.needed(), "revoking the last key opens nothing"
    store.keys.remove("website")
    clock.seconds += 3
    assert not ring.needed()


def test_an_expired_key_is_refused(sqlite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create_key(sqlite, "website", days=1)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2100, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("danlu.accounts.keys.datetime", Later)
    with pytest.raises(NoKeyError) as expired:
        KeyRing(sqlite).check(made.secret)
    assert expired.value.key == "keys.expired"


def test_requests_are_counted_over_the_last_minute(sqlite: Store, clock: Clock) -> None:
    ring, key = KeyRing(sqlite, clock), create_key(sqlite, "slow", requests_per_minute=3).key
    for _ in range(3):
        ring.admit(key)
        clock.seconds += 10
    with pytest.raises(QuotaError) as often:
        ring.admit(key)
    assert (often.value.code, often.value.retry_after) == ("rate_limit_exceeded", 30)
    clock.seconds += 30
    ring.admit(key)  # the first one is a minute old
    with pytest.raises(QuotaError):
        ring.admit(key)


def test_tokens_are_counted_by_the_day_and_over_all_servers(store: Store) -> None:
    key = create_key(store, "poor", tokens_per_day=100).key
    one, other = KeyRing(store), KeyRing(store)
    one.used(key.id, prompt_tokens=60, completion_tokens=30)
    one.admit(key)
    other.used(key.id, prompt_tokens=5, completion_tokens=5)
    with pytest.raises(QuotaError) as used_up:
        one.admit(key)
    assert used_up.value.code == "insufficient_quota"
    assert 0 < used_up.value.retry_after <= 86400
    (usage,) = store.keys.usage(days=1)
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (2, 65, 35)
    assert store.keys.list()[0].last_used_at is not None


def test_what_a_forgotten_key_uses_is_lost_without_harm(store: Store) -> None:
    key = create_key(store, "gone").key
    store.keys.remove("gone")
    KeyRing(store).used(key.id, prompt_tokens=1, completion_tokens=1)
    assert store.keys.usage(days=1) == ()

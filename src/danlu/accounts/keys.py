"""API keys: made, checked, and held to what they may use. Blocking; an event loop calls it through a thread.

A key has 256 random bits, so its SHA-256 says nothing about it and needs no salt or slow hash; it is shown once and
kept nowhere. What a key has used in this minute is known to this process only; what it has used today is read from
the database, so that several servers on one database hold to one quota. Not for HTTP.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from danlu.accounts.errors import NoKeyError, QuotaError
from danlu.errors import UsageError
from danlu.store.records import ApiKey
from danlu.store.store import Store

_PREFIX: Final = "dk-"
_HINT: Final = 9
_MINUTE: Final = 60.0
_FRESH_SECONDS: Final = 2.0
"""A revoked key is refused after so long at the latest: a look into the database at every request would cost more."""


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; ``secret`` is never shown again."""

    key: ApiKey
    secret: str


def create_key(
    store: Store,
    name: str,
    *,
    assistants: tuple[str, ...] | None = None,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    days: int | None = None,
) -> NewKey:
    """Make a key.

    Args:
        store: where its digest is kept.
        name: what people call it.
        assistants: names that it may call; None for all.
        requests_per_minute: None for no bound.
        tokens_per_day: read and written; None for no bound.
        days: it is refused after so many; None for never.

    Raises:
        ConflictError: there is one of this name.
        NotFoundError: there is no assistant of a name.
        UsageError: a name or a bound makes no sense.
    """
    if not name.strip():
        raise UsageError("keys.no_name")
    for bound in (requests_per_minute, tokens_per_day, days):
        if bound is not None and bound < 1:
            raise UsageError("keys.bad_bound", value=bound)
    for assistant in assistants or ():
        store.assistants.named(assistant)
    secret = _PREFIX + secrets.token_urlsafe(32)
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    key = store.keys.add(
        name.strip(),
        digest=digest_of(secret),
        hint=secret[:_HINT],
        assistants=assistants,
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
        expires_at=expires,
    )
    return NewKey(key, secret)


def digest_of(secret: str) -> str:
    """Return what is kept of a key: its SHA-256, 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", errors="surrogatepass")).hexdigest()


class KeyRing:
    """The keys as a server checks them; any thread may call it.

    Args:
        store: where they are kept.
        clock: seconds that only rise (tests).
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, ApiKey | None]] = {}
        self._needed: tuple[float, bool] = (-math.inf, False)
        self._requests: dict[str, deque[float]] = {}

    def known_needed(self) -> bool | None:
        """Return ``needed`` as far as it was looked up a moment ago, without waiting; None when it was not."""
        looked, value = self._needed
        return value if self._clock() - looked <= _FRESH_SECONDS else None

    def needed(self) -> bool:
        """Say whether callers need a key: as soon as there is one, so that revoking the last one opens nothing."""
        with self._lock:
            value = self.known_needed()
            if value is None:
                value = self._store.keys.any()
                self._needed = (self._clock(), value)
            return value

    def check(self, secret: str) -> ApiKey:
        """Return the key that a caller has sent.

        Raises:
            NoKeyError: unknown, expired or revoked.
        """
        digest = digest_of(secret)
        with self._lock:
            looked, key = self._known.get(digest, (-math.inf, None))
            if self._clock() - looked > _FRESH_SECONDS:
                key = self._store.keys.by_digest(digest)
                if key is not None:  # only what exists is kept: guesses must not fill the memory
                    self._known[digest] = (self._clock(), key)
                else:
                    self._known.pop(digest, None)
        if key is None:
            raise NoKeyError("keys.unknown")
        if key.revoked_at is not None:
            raise NoKeyError("keys.revoked", name=key.name)
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise NoKeyError("keys.expired", name=key.name)
        return key

    def admit(self, key: ApiKey) -> None:
        """Count a request of a key.

        Raises:
            QuotaError: it has used up its requests of this minute, or its tokens of today.
        """
        now = datetime.now(UTC)
        if key.tokens_per_day is not None and self._store.keys.tokens_on(key.id, now.date()) >= key.tokens_per_day:
            midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
            wait = math.ceil((midnight - now).total_seconds())
            raise QuotaError(
                "keys.tokens_used", retry_after=wait, code="insufficient_quota", name=key.name, most=key.tokens_per_day
            )
        if key.requests_per_minute is None:
            return
        with self._lock:
            moment = self._clock()
            recent = self._requests.setdefault(key.id, deque())
            while recent and moment - recent[0] >= _MINUTE:
                recent.popleft()
            if len(recent) >= key.requests_per_minute:
                wait = max(1, math.ceil(_MINUTE - (moment - recent[0])))
                raise QuotaError(
                    "keys.too_often",
                    retry_after=wait,
                    code="rate_limit_exceeded",
                    name=key.name,
                    most=key.requests_per_minute,
                )
            recent.append(moment)

    def used(self, key_id: str, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Add a request that is over to what a key has used."""
        day = datetime.now(UTC).date()
        self._store.keys.use(key_id, day, requests=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

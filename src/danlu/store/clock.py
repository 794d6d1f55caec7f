"""Times and ids of rows: times rise strictly within a process, so that rows made one after another sort that way."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

_lock = threading.Lock()
_last = datetime.min.replace(tzinfo=UTC)


def now() -> datetime:
    """Return the time in UTC, later than every time returned before, also when the machine's clock is set back."""
    global _last
    with _lock:
        _last = max(datetime.now(UTC), _last + timedelta(microseconds=1))
        return _last


def new_id() -> str:
    """Return a fresh random id of 32 hex digits."""
    return uuid.uuid4().hex

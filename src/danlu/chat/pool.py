"""Blocking work (the database) away from the event loop, in a bounded number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

# As many as the database has connections: more would only wait for one another.
_THREADS = 8


class Pool:
    """Runs functions in threads of its own share, so that a flood of one kind of work cannot starve another."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; a caller that is cancelled leaves it running to its end."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

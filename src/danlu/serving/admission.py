"""Who may generate now, who waits, and who is turned away: a bounded first-come-first-served queue.

Lives in one event loop and needs no lock. Not for quotas of users or keys.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from danlu.errors import BusyError

_SMOOTHING = 0.3  # weight of the newest answer in the mean duration
_LONGEST_RETRY = 120


class Ticket:
    """One request's place. ``position`` 0 means it holds a slot."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._moved = asyncio.Event()

    async def moved(self) -> None:
        """Wait until the position has changed."""
        await self._moved.wait()
        self._moved.clear()

    def move(self, position: int) -> None:
        """Set a new position and wake the waiter."""
        if position != self.position:
            self.position = position
            self._moved.set()


class Admission:
    """``slots`` requests run, ``queue`` more wait, all others are refused at once.

    Args:
        slots: answers at the same time.
        queue: requests that may wait.
    """

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.queue = queue
        self._running: set[Ticket] = set()
        self._waiting: deque[Ticket] = deque()
        self._mean_seconds: float | None = None

    @property
    def running(self) -> int:
        """Return how many requests hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    def enter(self) -> Ticket:
        """Take a slot or a place in the queue.

        Raises:
            BusyError: every place is taken.
        """
        if len(self._running) < self.slots and not self._waiting:
            ticket = Ticket(0)
            self._running.add(ticket)
            return ticket
        if len(self._waiting) >= self.queue:
            eta = self.eta(len(self._waiting) + 1)
            retry = 5 if eta is None else min(_LONGEST_RETRY, max(1, math.ceil(eta)))
            raise BusyError("serving.busy", retry_after=retry, waiting=len(self._waiting))
        ticket = Ticket(len(self._waiting) + 1)
        self._waiting.append(ticket)
        return ticket

    def leave(self, ticket: Ticket, seconds: float | None = None) -> None:
        """Give a place back, from wherever it was; harmless when done twice.

        Args:
            ticket: the place.
            seconds: how long a finished answer took; None for one that was not finished.
        """
        if ticket in self._running:
            self._running.remove(ticket)
            if seconds is not None:
                mean = self._mean_seconds
                self._mean_seconds = seconds if mean is None else mean + _SMOOTHING * (seconds - mean)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        while self._waiting and len(self._running) < self.slots:
            first = self._waiting.popleft()
            self._running.add(first)
            first.move(0)
        for position, waiting in enumerate(self._waiting, start=1):
            waiting.move(position)

    def eta(self, position: int) -> float | None:
        """Return the seconds until the request at ``position`` starts, from the mean of past answers."""
        if self._mean_seconds is None:
            return None
        return round(self._mean_seconds * position / self.slots, 1)

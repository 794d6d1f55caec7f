"""Finds stop strings in a stream, however it is cut, and holds back what may become one.

Not for tokens that end a turn: the engine ends there by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from danlu.serving.thinking import suffix_that_begins


class StopScanner:
    """Feed text, get the text that is certainly before any stop string.

    Where several stop strings match, the one that begins first ends the answer.

    Args:
        stops: the strings; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit: str | None = None

    def feed(self, text: str) -> str:
        """Return the text that may be handed on; nothing more after a hit."""
        if self.hit is not None:
            return ""
        self._held += text
        return self._emit(final=False)

    def close(self) -> str:
        """Return what was held back when the stream has ended."""
        return "" if self.hit is not None else self._emit(final=True)

    def _emit(self, *, final: bool) -> str:
        found = [(place, -len(stop), stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        keep = 0 if final else max((suffix_that_begins(self._held, stop) for stop in self._stops), default=0)
        sure = len(self._held) - keep
        # A match is settled only when no longer-waiting stop string could still begin before it.
        if found and min(found)[0] <= sure:
            place, _, self.hit = min(found)
            before, self._held = self._held[:place], ""
            return before
        before, self._held = self._held[:sure], self._held[sure:]
        return before

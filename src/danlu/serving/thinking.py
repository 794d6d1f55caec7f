"""Splits a stream of raw text into the answer and the thinking before it.

A think block counts only at the beginning of an answer: either the template opened it in the prompt (then only
``</think>`` comes) or the model opens it itself. The result does not depend on how the text is cut into chunks.
"""

from __future__ import annotations

from enum import Enum, auto

OPEN = "<think>"
CLOSE = "</think>"


class _Phase(Enum):
    START = auto()  # nothing but white space so far: a think block may open
    THINKING = auto()
    AFTER = auto()  # behind the block: white space before the answer is dropped
    CONTENT = auto()


class ThinkingSplitter:
    """Feed raw text, get ``(content, reasoning)``.

    White space around the thinking and between it and the answer is the template's, so it is dropped; white space
    of an answer without a think block is kept.

    Args:
        opened: the prompt already ends inside a think block.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._phase = _Phase.THINKING if opened else _Phase.START
        self._held = ""
        self._spoken = False  # some thinking has been handed out

    @property
    def thinking(self) -> bool:
        """Return whether the stream is inside a think block."""
        return self._phase is _Phase.THINKING

    def feed(self, text: str) -> tuple[str, str]:
        """Return what can be told for sure after ``text``; the rest is held back."""
        self._held += text
        content, reasoning = "", ""
        if self._phase is _Phase.START:
            content = self._start()
        if self._phase is _Phase.THINKING:
            reasoning = self._think()
        if self._phase is _Phase.AFTER:
            self._held = self._held.lstrip()
            if self._held:
                self._phase = _Phase.CONTENT
        if self._phase is _Phase.CONTENT:
            content += self._held
            self._held = ""
        return content, reasoning

    def close(self) -> tuple[str, str]:
        """Return what was held back when the stream has ended."""
        held, self._held = self._held, ""
        if self._phase is _Phase.THINKING:
            return "", self._trim(held.rstrip())
        return ("" if self._phase is _Phase.AFTER else held), ""

    def _start(self) -> str:
        begin = self._held.lstrip()
        if begin.startswith(OPEN):
            self._held = begin[len(OPEN) :]
            self._phase = _Phase.THINKING
        elif begin and not OPEN.startswith(begin):
            self._phase = _Phase.CONTENT
        return ""

    def _think(self) -> str:
        end = self._held.find(CLOSE)
        if end >= 0:
            reasoning = self._trim(self._held[:end].rstrip())
            self._held = self._held[end + len(CLOSE) :]
            self._phase = _Phase.AFTER
            return reasoning
        keep = suffix_that_begins(self._held, CLOSE)
        sure = self._held[: len(self._held) - keep].rstrip()
        self._held = self._held[len(sure) :]
        return self._trim(sure)

    def _trim(self, text: str) -> str:
        if self._spoken:
            return text
        text = text.lstrip()
        self._spoken = bool(text)
        return text


def suffix_that_begins(text: str, mark: str) -> int:
    """Return the length of the longest end of ``text`` that is a beginning of ``mark`` (shorter than it)."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0

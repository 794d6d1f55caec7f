"""Finds calls of tools in the visible text of an answer, however it is cut into pieces.

Text before the first call is handed on at once. From the mark of a call on everything is held until the answer ends or
no more calls may come: what turns out to be no call of a declared tool is handed on as text, so that nothing an engine
says is lost. Not for how a family writes calls (``models.call_syntax``).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable

from danlu.models.call_syntax import CallSyntax
from danlu.serving.engine import Call
from danlu.serving.thinking import suffix_that_begins


class ToolCallScanner:
    """Feed text, get ``(text, calls)``.

    Args:
        syntax: how the model's template writes calls.
        names: the tools that were declared.
        one: the answer ends with its first call.
    """

    def __init__(self, syntax: CallSyntax, names: Iterable[str], *, one: bool) -> None:
        self._syntax = syntax
        self._names = frozenset(names)
        self._one = one
        self._held = ""
        self._in_call = False
        self._begun = False  # text other than white space has been handed on
        self.ended = False

    def feed(self, text: str) -> tuple[str, tuple[Call, ...]]:
        """Return the text that is certainly none of a call, and the calls that are certainly whole."""
        self._held += text
        before = "" if self._in_call else self._before_mark()
        if self._in_call and self._one and not self.ended:
            call = self._read(self._first())
            if call is not None:
                self.ended, self._held = True, ""
                return before, (call[0],)
        return before, ()

    def close(self) -> tuple[str, tuple[Call, ...]]:
        """Return what was held back when the stream has ended."""
        held = self._held
        if self.ended or not self._in_call:
            self._held = ""
            return ("" if self.ended else held), ()
        calls: list[Call] = []
        start: int | None = self._first()
        end = 0
        while start is not None:
            found = self._read(start)
            if found is None:
                # One that is cut off or not declared: all of it stays text, so that the caller sees what came.
                return held, ()
            call, end = found
            calls.append(call)
            start = self._syntax.next_start(held, end)
        self._held = ""
        # What was said behind the calls is said, but for the mark that ends them.
        behind, mark = held[end:].lstrip(), self._syntax.end.strip()
        return behind.removeprefix(mark).strip() if mark else behind.strip(), tuple(calls)

    def _before_mark(self) -> str:
        mark = self._syntax.mark
        if not mark:
            return self._before_object()
        place = self._held.find(mark)
        self._in_call = place >= 0
        # White space before a mark belongs to the call, if it turns out to be one: it is held back with it.
        until = place if self._in_call else len(self._held) - suffix_that_begins(self._held, mark)
        sure = len(self._held[:until].rstrip())
        before, self._held = self._held[:sure], self._held[sure:]
        return before

    def _before_object(self) -> str:
        """Without a mark, only an answer that begins with an object may be a call."""
        if not self._begun and not self._held.strip():
            return ""
        if not self._begun and self._held.lstrip().startswith("{"):
            self._in_call = True
            return ""
        self._begun = True
        before, self._held = self._held, ""
        return before

    def _first(self) -> int:
        """Return where the first call begins, behind its mark."""
        return self._held.index(self._syntax.mark) + len(self._syntax.mark)

    def _read(self, start: int) -> tuple[Call, int] | None:
        found = self._syntax.parse(self._held, start)
        if found is None or found.name not in self._names:
            return None
        return Call(f"call_{uuid.uuid4().hex[:24]}", found.name, found.arguments), found.end


def declared(tools: str) -> dict[str, dict[str, object]]:
    """Return the JSON Schema of the arguments of each tool in OpenAI's list."""
    functions = (tool["function"] for tool in json.loads(tools)) if tools else ()
    return {function["name"]: function.get("parameters") or {"type": "object"} for function in functions}

"""How a chat template writes a call of a tool, found out by letting it write one.

Families differ: ``<tool_call>{"name": …, "arguments": …}</tool_call>`` (Qwen, Hermes), a bare object with
``parameters`` (Llama 3), a list behind ``[TOOL_CALLS]`` (Mistral), the name before a JSON block (DeepSeek-R1's
distils). A template that writes none of these forms has no syntax here. Not for finding calls in a stream
(``serving.tool_calls``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from danlu.models.messages import Message, ToolCall

_NAME: Final = "xDanluNamex"
_VALUE: Final = "xDanluValuex"
_CALL: Final = ToolCall(_NAME, json.dumps({"a": _VALUE}))
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True)
class ParsedCall:
    """A call as it was written.

    Attributes:
        name: the tool.
        arguments: a JSON object as text.
        end: place behind it in the text.
    """

    name: str
    arguments: str
    end: int


@dataclass(frozen=True)
class CallSyntax:
    """How calls are written.

    Attributes:
        begin: what stands before the first call; may be empty.
        name_key: key of the name in the JSON object; None when the name stands before the object.
        arguments_key: key of the arguments; None when the object is the arguments.
        middle: between a name and the object of its arguments, where the name stands before it.
        between: between two calls; None where the template writes one a turn.
        end: what stands behind the last call, without the end of the turn.
    """

    begin: str
    name_key: str | None
    arguments_key: str | None
    middle: str
    between: str | None
    end: str

    @property
    def mark(self) -> str:
        """What tells a call from text: the beginning without white space; empty when a call begins with its object."""
        return self.begin.strip()

    def parse(self, text: str, start: int = 0) -> ParsedCall | None:
        """Read the call that begins at ``start``, behind ``begin``; None while or when there is no whole one."""
        if self.name_key is None:
            middle = self.middle.strip()
            place = text.find(middle, start)
            if place < 0:
                return None
            name, start = text[start:place].strip(), place + len(middle)
            found = _object_at(text, start)
            if found is None:
                return None
            return ParsedCall(name, json.dumps(found[0], ensure_ascii=False), found[1])
        found = _object_at(text, start)
        if found is None:
            return None
        value, end = found
        arguments = _arguments(value.get(self.arguments_key or ""))
        named = value.get(self.name_key)
        return ParsedCall(named, arguments, end) if isinstance(named, str) and arguments is not None else None

    def next_start(self, text: str, end: int) -> int | None:
        """Return where another call begins behind one that ended at ``end``; None when there is none."""
        if self.between is None:
            return None
        # Models do not always write the white space that the template would.
        place = _skip(text, end)
        for mark in self.between.split():
            if not text.startswith(mark, place):
                return None
            place = _skip(text, place + len(mark))
        return place if place < len(text) and (self.between.strip() or text[place] == "{") else None

    def must_call(self, parameters: dict[str, Any]) -> tuple[str, str] | None:
        """Return the text and the JSON Schema by which an engine is held to a call of one of some tools.

        Args:
            parameters: JSON Schema of the arguments of each tool.

        Returns:
            what the answer begins with, and the schema of what follows; None where the name stands outside of the
            object and there are several.
        """
        if self.name_key is None or self.arguments_key is None:
            if len(parameters) != 1:
                return None
            ((name, schema),) = parameters.items()
            return self.begin + name + self.middle, json.dumps(schema)
        choices = [
            {
                "type": "object",
                "properties": {self.name_key: {"const": name}, self.arguments_key: schema},
                "required": [self.name_key, self.arguments_key],
                "additionalProperties": False,
            }
            for name, schema in parameters.items()
        ]
        return self.begin, json.dumps(choices[0] if len(choices) == 1 else {"anyOf": choices})


def example(calls: int) -> tuple[Sequence[Message], str]:
    """Return a conversation with so many calls, and the tool they call, for a template to write."""
    tool = {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "-",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        },
    }
    return (Message("user", "?"), Message("assistant", "", tool_calls=(_CALL,) * calls)), json.dumps([tool])


def syntax_of(once: str, twice: str | None) -> CallSyntax | None:
    """Read the syntax from how a template writes the answers of ``example(1)`` and ``example(2)``.

    Args:
        once: an answer with one call, the end of the turn taken off.
        twice: one with two; None where the template refuses that.

    Returns:
        None when it is none of the forms that are known.
    """
    found = _find(once, 0)
    if found is None:
        return None
    begin, start, end = found.begin, found.start, found.end
    behind = once[end:]
    between = None
    if twice is not None and twice.startswith(once[:end]) and twice.endswith(behind):
        second = _find(twice, end)
        between = twice[end : second.name_start if found.name_key is None else second.start] if second else None
    middle = once[found.name_start + len(_NAME) : start] if found.name_key is None else ""
    return CallSyntax(begin.lstrip(), found.name_key, found.arguments_key, middle, between, behind)


@dataclass(frozen=True)
class _Found:
    """Where the object of a call stands, and its name where that stands before it."""

    begin: str
    start: int
    end: int
    name_start: int
    name_key: str | None
    arguments_key: str | None


def _find(text: str, begin: int) -> _Found | None:
    """Return the first call in ``text`` from ``begin`` on."""
    for start in range(begin, len(text)):
        found = _object_at(text, start) if text[start] == "{" else None
        if found is None:
            continue
        value, end = found
        name_key = next((key for key, item in value.items() if item == _NAME), None)
        arguments_key = next((key for key, item in value.items() if _is_arguments(item)), None)
        if name_key is not None and arguments_key is not None:
            return _Found(text[begin:start], start, end, start, name_key, arguments_key)
        place = text.find(_NAME, begin)
        if _is_arguments(value) and 0 <= place < start and text[place + len(_NAME) : start].strip():
            return _Found(text[begin:place], start, end, place, None, None)
    return None


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    start = _skip(text, start)
    if not text.startswith("{", start):
        return None
    try:
        value, end = _DECODER.raw_decode(text, start)
    except ValueError:
        return None
    return (value, end) if isinstance(value, dict) else None


def _is_arguments(value: object) -> bool:
    return value == {"a": _VALUE} or (isinstance(value, str) and _arguments(value) == json.dumps({"a": _VALUE}))


def _arguments(value: object) -> str | None:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        try:
            return json.dumps(inner, ensure_ascii=False) if isinstance(inner := json.loads(value), dict) else None
        except ValueError:
            return None
    return None

"""Rows to conversations. A format knows how one family of rows is read; Alpaca is the first of them.

Adding a format means adding a class with ``matches`` and ``convert`` to ``FORMATS``. Not for token ids (``encode``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from danlu.data.rows import Row, kind_of, place
from danlu.errors import DataError
from danlu.models.chat_format import THINK_CLOSE
from danlu.models.messages import Message


@dataclass(frozen=True)
class Conversation:
    """What is said, and which turns are learned.

    Attributes:
        messages: the turns in order; a system message, if any, comes first.
        learn: for each message whether the model is to learn to write it.
        row: number of the row it came from, from 1.
        line: line of the file that row begins on, from 1.
        weight: how much its answers count beside those of other rows, above 0 and at most 1.
        pseudo: its answer was written by a model; it is never measured on.
        accepted: it is learned; only a pseudo label may not be.
        tools: the tools that the assistant may call, a JSON list as text (OpenAI's ``tools``); empty for none.
    """

    messages: tuple[Message, ...]
    learn: tuple[bool, ...]
    row: int
    line: int
    weight: float = 1.0
    pseudo: bool = False
    accepted: bool = True
    tools: str = ""

    @property
    def reasoned(self) -> bool:
        """Whether an answer that is learned carries its reasoning in a think block."""
        pairs = zip(self.messages, self.learn, strict=True)
        return any(message.reasoning or THINK_CLOSE in message.content for message, learned in pairs if learned)

    @property
    def question(self) -> str:
        """The last thing the user says."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1].content


class RowFormat(Protocol):
    """A family of rows.

    Attributes:
        name: its name.
        fields: the fields that are read; others are ignored.
    """

    name: str
    fields: frozenset[str]

    def matches(self, row: Row) -> bool:
        """Say whether a row looks like one of this family."""

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Turn a row into a conversation, or raise a ``DataError`` that names the row and the field."""


class AlpacaFormat:
    """``instruction``, optional ``input``, ``output``, optional ``system`` and ``history`` of [question, answer] pairs.

    Instruction and input are joined by a line break, as the field's tools do. ``weight`` says how much a row counts;
    ``accepted`` stands in rows that a model has answered (``jobs.labelling``), beside the scores of the answer.
    """

    name = "alpaca"
    fields = frozenset({"instruction", "input", "output", "system", "history", "weight", "accepted"})

    def matches(self, row: Row) -> bool:
        """Say whether the row has an instruction or an output."""
        return "instruction" in row.values or "output" in row.values

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Read one row.

        Raises:
            DataError: a field is missing, empty, or of the wrong type.
        """
        prompt = alpaca_prompt(file, row)
        accepted = row.values.get("accepted")
        if not (accepted is None or isinstance(accepted, bool)):
            where = place(file, row, "accepted")
            raise DataError("data.accepted_not_bool", where, field="accepted", kind=kind_of(accepted))
        # What is not learned may be an empty answer that counts nothing.
        learned = accepted is not False
        messages = (*prompt, Message("assistant", _text(file, row, "output", required=learned)))
        learn = tuple(message.role == "assistant" for message in messages)
        weight = _weight(file, row) if learned else 1.0
        return Conversation(messages, learn, row.index, row.line, weight, accepted is not None, learned)


FORMATS: Final[tuple[RowFormat, ...]] = (AlpacaFormat(),)


def alpaca_prompt(file: Path | str, row: Row) -> tuple[Message, ...]:
    """Return what stands before the answer of an Alpaca-like row: system prompt, history and question.

    Raises:
        DataError: a field is missing, empty, or of the wrong type.
    """
    instruction = _text(file, row, "instruction", required=True)
    extra = _text(file, row, "input")
    system = _text(file, row, "system")
    messages: list[Message] = [Message("system", system)] if system else []
    messages += _history(file, row)
    messages.append(Message("user", f"{instruction}\n{extra}" if extra else instruction))
    return tuple(messages)


def recognise(file: Path | str, rows: list[Row]) -> RowFormat:
    """Return the format that the rows are in.

    Raises:
        DataError: no format fits; the message names the fields that were found.
    """
    for candidate in FORMATS:
        if candidate.matches(rows[0]):
            return candidate
    found = ", ".join(list(rows[0].values)[:8]) or "–"
    raise DataError("data.unknown_format", place(file, rows[0]), found=found)


def _text(file: Path | str, row: Row, field: str, *, required: bool = False) -> str:
    value = row.values.get(field)
    if value is None and not required:
        return ""
    if value is None:
        raise DataError("data.field_missing", place(file, row, field), field=field)
    if not isinstance(value, str):
        raise DataError("data.field_not_text", place(file, row, field), field=field, kind=kind_of(value))
    if required and not value.strip():
        raise DataError("data.field_empty", place(file, row, field), field=field)
    return value


def _weight(file: Path | str, row: Row) -> float:
    value = row.values.get("weight")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise DataError("data.bad_weight", place(file, row, "weight"), field="weight", value=_excerpt(value))
    return float(value)


def _history(file: Path | str, row: Row) -> list[Message]:
    value = row.values.get("history")
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError("data.history_shape", place(file, row, "history"), kind=kind_of(value))
    messages: list[Message] = []
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)):
            raise DataError("data.history_shape", place(file, row, "history"), kind=_excerpt(pair))
        messages += [Message("user", str(pair[0])), Message("assistant", str(pair[1]))]
    return messages


def _excerpt(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"

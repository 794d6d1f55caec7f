"""Rows that hold a whole conversation: OpenAI's ``messages`` and ShareGPT's ``conversations``."""

from __future__ import annotations

from pathlib import Path

from danlu.data.conversations import Conversation
from danlu.data.formats.base import Kind, accepted_of, text_of, tools_of, weight_of
from danlu.data.formats.turns import Turn, require_order, turns_of
from danlu.data.rows import Row, place
from danlu.errors import DataError
from danlu.models.messages import Message

LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "对话", "消息")
_MORE = frozenset({"system", "tools", "functions", "weight", "accepted"})


class MessagesFormat:
    """A list of messages; ``system``, ``tools``, ``weight`` and ``accepted`` may stand beside it.

    Each message is ``{role, content}`` or ``{from, value}``. Content is a text, or a list of parts (texts, reasoning,
    calls of tools). An answer with ``learn: false`` (or OpenAI's ``weight: 0``) is read and not learned.
    """

    name = "messages"
    kind: Kind = "conversations"
    fields = frozenset(LISTS) | _MORE
    folded = False
    shown: tuple[str, ...] = ("messages", "conversations", "system", "tools", "weight", "accepted")

    def matches(self, row: Row) -> bool:
        """Say whether the row has a list of messages."""
        return any(row.values.get(name) is not None for name in LISTS)

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Read one row.

        Raises:
            DataError: a message is no message, or turns are out of order; the message names the turn.
        """
        turns = read_turns(file, row)
        field = list_field(row) or LISTS[0]
        require_order(file, row, field, turns)
        if not any(turn.learn for turn in turns):
            raise DataError("formats.nothing_learned", place(file, row, field))
        accepted = accepted_of(file, row)
        return Conversation(
            tuple(turn.message for turn in turns),
            tuple(turn.learn for turn in turns),
            row.index,
            row.line,
            weight_of(file, row),
            accepted is not None,
            accepted is not False,
            tools_of(file, row),
        )


def list_field(row: Row) -> str | None:
    """Return the field that holds the messages; one that holds nothing only where there is no other."""
    return next((name for name in LISTS if row.values.get(name) is not None), None) or next(
        (name for name in LISTS if name in row.values), None
    )


def read_turns(file: Path | str, row: Row) -> list[Turn]:
    """Return the turns of a row with the system prompt that stands beside them, in any order.

    Raises:
        DataError: a message is no message, or there are two system prompts.
    """
    field = list_field(row)
    if field is None:
        raise DataError("formats.no_messages", place(file, row), found=", ".join(list(row.values)[:8]) or "–")
    return with_system(file, row, turns_of(file, row, field, row.values[field]))


def with_system(file: Path | str, row: Row, turns: list[Turn]) -> list[Turn]:
    """Return turns behind the system prompt that stands beside them in the row, if there is one.

    Raises:
        DataError: it is no text, or the turns begin with another system prompt.
    """
    system = text_of(file, row, "system")
    if not system:
        return turns
    if turns and turns[0].message.role == "system":
        if turns[0].message.content.strip() == system.strip():
            return turns
        raise DataError("formats.two_systems", place(file, row, "system"))
    return [Turn(Message("system", system), learn=False), *turns]

"""Rows with one column for the question and one for the answer, in any language; TRL's prompt and completion too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from danlu.data.conversations import Conversation
from danlu.data.formats.alpaca import AlpacaFormat
from danlu.data.formats.base import Kind, accepted_of, tools_of, weight_of
from danlu.data.formats.messages import with_system
from danlu.data.formats.names import (
    ANSWERS,
    CONTEXTS,
    KEPT,
    QUESTIONS,
    SYSTEMS,
    answering,
    asking,
    in_their_words,
    moved,
)
from danlu.data.formats.turns import Turn, require_order, turns_of
from danlu.data.rows import JsonValue, Row, place
from danlu.errors import DataError
from danlu.models.messages import Message, Role


class ColumnsFormat:
    """A column that asks and one that answers, whatever they are called (``names``).

    Either may be a list of messages. A third column with a context is appended to the question, as Alpaca's ``input``.
    """

    name = "columns"
    kind: Kind = "conversations"
    fields = QUESTIONS | ANSWERS | CONTEXTS | SYSTEMS | KEPT
    folded = True
    shown: tuple[str, ...] = ("question", "answer", "context", "system", "history", "weight", "accepted", "tools")

    def matches(self, row: Row) -> bool:
        """Say whether one column asks and another one answers."""
        return asking(row) is not None and answering(row) is not None

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Read one row.

        Raises:
            DataError: a column is missing, empty, or of the wrong type.
        """
        asks, answers = asking(row), answering(row)
        if asks is None or answers is None:
            names = ", ".join(list(row.values)[:8]) or "–"
            raise DataError("formats.no_columns", place(file, row), found=names)
        if isinstance(row.values[asks], list) or _is_conversation(row.values[answers]):
            return _conversation(file, row, asks, answers)
        values = {**row.values, answers: one_answer(file, row, answers)}
        renamed, called = moved(file, replace(row, values=values), asks, answers)
        try:
            return AlpacaFormat().convert(file, renamed)
        except DataError as error:
            raise in_their_words(file, row, error, called) from None


def one_answer(file: Path | str, row: Row, name: str) -> JsonValue:
    """Return the answer in a column; of a list of accepted answers the only one there is.

    Reading tasks give ``{"text": [...]}`` (SQuAD's shape) and repeat the same words for each place where they stand.

    Raises:
        DataError: several answers differ: which one is to be learned is not for a program to choose.
    """
    value = row.values[name]
    inner = value.get("text") if isinstance(value, dict) else value
    if not isinstance(inner, list):
        return value
    texts = [item for item in inner if isinstance(item, str)]
    if len(texts) != len(inner) or not texts:
        return value
    distinct = list(dict.fromkeys(text.strip() for text in texts))
    if len(distinct) > 1:
        raise DataError("formats.several_answers", place(file, row, name), field=name, count=len(distinct))
    return texts[0]


def _is_conversation(value: JsonValue) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _conversation(file: Path | str, row: Row, asks: str, answers: str) -> Conversation:
    question = with_system(file, row, _as_turns(file, row, asks, "user"))
    turns = [*question, *_as_turns(file, row, answers, "assistant")]
    require_order(file, row, answers, turns)
    accepted = accepted_of(file, row)
    return Conversation(
        tuple(turn.message for turn in turns),
        # What the assistant said before belongs to the prompt.
        tuple(turn.learn and number >= len(question) for number, turn in enumerate(turns)),
        row.index,
        row.line,
        weight_of(file, row),
        accepted is not None,
        accepted is not False,
        tools_of(file, row),
    )


def _as_turns(file: Path | str, row: Row, name: str, role: Role) -> list[Turn]:
    """Return the messages in a column; of a text the one that it is."""
    value = row.values[name]
    if isinstance(value, str):
        return [Turn(Message(role, value), learn=role == "assistant")]
    return turns_of(file, row, name, value)

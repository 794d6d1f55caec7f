"""Rows to questions: what is asked, without an answer. ``danlu pseudo-label`` lets a trained model answer them.

Not for questions that measure a model (``evaluation.probes``), nor for what is learned (``conversations``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from danlu.data.conversations import alpaca_prompt
from danlu.data.rows import JsonValue, Row
from danlu.models.messages import Message

# Rows with one of these have an answer, or are something else altogether; a missing output is then a mistake.
_ANSWERED: Final = frozenset({
    "output", "answer", "answers", "response", "completion", "chosen", "rejected", "text", "messages", "conversations",
})  # fmt: skip
_KEPT: Final = ("instruction", "input", "system", "history")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        messages: the turns in order; the last one is the user's.
        fields: ``instruction`` and, where the row has them, ``input``, ``system`` and ``history``, as they stand there.
        row: number of the row it came from, from 1.
        line: line of the file that row begins on, from 1.
    """

    messages: tuple[Message, ...]
    fields: Mapping[str, JsonValue]
    row: int
    line: int


class QuestionFormat:
    """``instruction`` or ``question``, with optional ``input``, ``system`` and ``history``; nothing that answers it."""

    name = "questions"
    fields = frozenset({"question", *_KEPT})

    def convert(self, file: Path | str, row: Row) -> Question:
        """Read one row.

        Raises:
            DataError: a field is missing, empty, or of the wrong type.
        """
        values = dict(row.values)
        if "instruction" not in values and "question" in values:
            values["instruction"] = values["question"]
        fields = {name: values[name] for name in _KEPT if values.get(name) is not None}
        return Question(alpaca_prompt(file, replace(row, values=values)), fields, row.index, row.line)


def hold_questions(rows: Sequence[Row]) -> bool:
    """Say whether rows ask and none of them answers; one answer among them makes the others mistakes."""
    first = rows[0].values
    asks = "instruction" in first or "question" in first
    return asks and not any(row.values.get(name) is not None for row in rows for name in _ANSWERED)

"""Rows that are no answers: plain texts, and questions that nothing answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from danlu.data.documents import Document
from danlu.data.formats.alpaca import QUESTIONS, alpaca_prompt, fold
from danlu.data.formats.base import Kind
from danlu.data.questions import Question
from danlu.data.rows import DOCUMENT_FIELD, Row, kind_of, place
from danlu.errors import DataError

# Names under which texts stand, beside Danlu's own; a row with one of them is a text only where nothing asks.
_TEXTS: Final = (DOCUMENT_FIELD, "content", "document", "passage", "正文", "内容", "文本", "文章")
# Rows with one of these have an answer, or are something else altogether; a missing output is then a mistake.
_ANSWERED: Final = frozenset({
    "output", "answer", "answers", "response", "completion", "chosen", "rejected", "text", "messages", "conversations",
})  # fmt: skip
_KEPT: Final = ("instruction", "input", "system", "history")


class TextFormat:
    """Rows with a ``text`` (or ``content``, ``document``, ``正文`` …); other fields are ignored."""

    name = "text"
    kind: Kind = "texts"
    fields = frozenset(_TEXTS)

    def matches(self, row: Row) -> bool:
        """Say whether the row has a text."""
        return any(name in row.values for name in _TEXTS)

    def convert(self, file: Path | str, row: Row) -> Document:
        """Read one row.

        Raises:
            DataError: the text is missing, empty, or no text.
        """
        field = next((name for name in _TEXTS if name in row.values), DOCUMENT_FIELD)
        value = row.values.get(field)
        where = place(file, row, field)
        if value is None:
            raise DataError("data.document_missing", where, field=field)
        if not isinstance(value, str):
            raise DataError("data.field_not_text", where, field=field, kind=kind_of(value))
        if not value.strip():
            raise DataError("data.document_empty", where, field=field)
        return Document(value, row.index, row.line)


class QuestionFormat:
    """A column that asks, with optional ``input``, ``system`` and ``history``; nothing that answers it."""

    name = "questions"
    kind: Kind = "questions"
    fields = QUESTIONS | frozenset(_KEPT)

    def matches(self, row: Row) -> bool:
        """Say whether the row asks."""
        return _asking(row) is not None

    def convert(self, file: Path | str, row: Row) -> Question:
        """Read one row.

        Raises:
            DataError: a field is missing, empty, or of the wrong type.
        """
        values = dict(row.values)
        asking = _asking(row)
        if asking is not None and "instruction" not in values:
            values["instruction"] = values.pop(asking)
        fields = {name: values[name] for name in _KEPT if values.get(name) is not None}
        return Question(alpaca_prompt(file, replace(row, values=values)), fields, row.index, row.line)


def answers_nothing(rows: Iterable[Row]) -> bool:
    """Say whether none of the rows has anything that answers; one answer among them makes the others mistakes."""
    return not any(row.values.get(name) is not None for row in rows for name in _ANSWERED)


def _asking(row: Row) -> str | None:
    if "instruction" in row.values:
        return "instruction"
    return next((name for name in row.values if fold(name) in QUESTIONS), None)

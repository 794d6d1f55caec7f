"""Rows that are no answers: plain texts, and questions that nothing answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from danlu.data.documents import Document
from danlu.data.formats.alpaca import alpaca_prompt
from danlu.data.formats.base import Kind
from danlu.data.formats.names import (
    ABOUT,
    CONTEXTS,
    QUESTIONS,
    SYSTEMS,
    answering,
    answerish,
    asking,
    fold,
    in_their_words,
    moved,
)  # fmt: skip
from danlu.data.questions import Question
from danlu.data.rows import DOCUMENT_FIELD, Row, kind_of, place
from danlu.errors import DataError

# Names under which texts stand beside Danlu's own; those rows are texts only where no other column holds one.
_TEXTS: Final = (DOCUMENT_FIELD, "content", "document", "passage", "正文", "内容", "文本", "文章")
_KEPT: Final = ("instruction", "input", "system", "history")


class TextFormat:
    """Rows with a ``text`` (or ``content``, ``document``, ``正文`` …); other fields are ignored."""

    name = "text"
    kind: Kind = "texts"
    fields = frozenset(_TEXTS)
    folded = False
    shown: tuple[str, ...] = _TEXTS

    def matches(self, row: Row) -> bool:
        """Say whether the row has a text, and nothing that asks or answers beside it."""
        field = next((name for name in _TEXTS if name in row.values), None)
        if field is None or asking(row) is not None or answering(row) is not None:
            return False
        if field == DOCUMENT_FIELD:
            return True
        others = (name for name, value in row.values.items() if name != field and isinstance(value, str))
        return all(fold(name) in ABOUT for name in others)

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
    fields = QUESTIONS | CONTEXTS | SYSTEMS | frozenset(_KEPT)
    folded = True
    shown: tuple[str, ...] = ("question", "instruction", "input", "context", "system", "history")

    def matches(self, row: Row) -> bool:
        """Say whether the row asks, and nothing in it may be an answer: a text of another name may well be one."""
        if asking(row) is None or answerish(row):
            return False
        others = (name for name, value in row.values.items() if isinstance(value, str))
        return all(fold(name) in self.fields | ABOUT for name in others)

    def convert(self, file: Path | str, row: Row) -> Question:
        """Read one row.

        Raises:
            DataError: a field is missing, empty, or of the wrong type.
        """
        renamed, called = moved(file, row, asking(row) or "instruction") if asking(row) else (row, {})
        fields = {name: renamed.values[name] for name in _KEPT if renamed.values.get(name) is not None}
        try:
            return Question(alpaca_prompt(file, renamed), fields, row.index, row.line)
        except DataError as error:
            raise in_their_words(file, row, error, called) from None


def answers_nothing(rows: Iterable[Row]) -> bool:
    """Say whether none of the rows has anything that answers; one answer among them makes the others mistakes."""
    return not any(answerish(row) for row in rows)

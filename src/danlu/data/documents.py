"""Rows to documents: plain texts to learn as they are. Not for reading files (``rows``) or token ids (``texts``).

A document is a row with the field ``text``, or a whole text file. Blank lines do not divide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from danlu.data.rows import DOCUMENT_FIELD, Row, kind_of, place
from danlu.errors import DataError


@dataclass(frozen=True)
class Document:
    """A plain text.

    Attributes:
        text: the text, never empty.
        row: number of the row it came from, from 1.
        line: line of the file that row begins on, from 1.
    """

    text: str
    row: int
    line: int


class TextFormat:
    """Rows with a ``text``; other fields are ignored."""

    name = "text"
    fields = frozenset({DOCUMENT_FIELD})

    def matches(self, row: Row) -> bool:
        """Say whether the row has a text."""
        return DOCUMENT_FIELD in row.values

    def convert(self, file: Path | str, row: Row) -> Document:
        """Read one row.

        Raises:
            DataError: the text is missing, empty, or no text.
        """
        value = row.values.get(DOCUMENT_FIELD)
        where = place(file, row, DOCUMENT_FIELD)
        if value is None:
            raise DataError("data.document_missing", where, field=DOCUMENT_FIELD)
        if not isinstance(value, str):
            raise DataError("data.field_not_text", where, field=DOCUMENT_FIELD, kind=kind_of(value))
        if not value.strip():
            raise DataError("data.document_empty", where, field=DOCUMENT_FIELD)
        return Document(value, row.index, row.line)

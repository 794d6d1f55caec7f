"""A document: a plain text to learn as it is, a row with the field ``text`` or a whole text file.

Not for how rows become one (``formats.plain``), nor for token ids (``texts``). Blank lines do not divide a document.
"""

from __future__ import annotations

from dataclasses import dataclass


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

"""A title for a conversation from its first question."""

from __future__ import annotations

import unicodedata
from typing import Final

import regex

_COLUMNS: Final = 48
_ELLIPSIS: Final = "…"


def title_from(question: str) -> str:
    """Return the question on one line, cut after about 48 Latin or 24 Chinese characters.

    The cut falls between characters as people see them (never inside an emoji or before an accent), and between words
    where the text has spaces.
    """
    line = " ".join(question.split())
    if columns(line) <= _COLUMNS:
        return line
    kept, width = "", 0
    for character in regex.findall(r"\X", line):
        width += columns(character)
        if width > _COLUMNS - 1:
            break
        kept += character
    before_word, space, _ = kept.rpartition(" ")
    # A word that starts in the last third is left out whole; a longer one is cut.
    if space and columns(before_word) >= _COLUMNS * 2 // 3 and not line[len(kept) :].startswith(" "):
        kept = before_word
    return kept.rstrip() + _ELLIPSIS


def columns(text: str) -> int:
    """Return about how many columns a text takes; Chinese characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )

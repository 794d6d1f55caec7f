"""Which words of two texts differ: Chinese and Japanese by characters, all others by words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Final, Literal

import regex

Sign = Literal[" ", "-", "+"]
_PARTS: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]|\s+|[\p{L}\p{M}\p{N}_]+|.", regex.DOTALL)
# difflib takes a time that grows with the square of the parts; beyond this it leaves frequent ones out of account.
_LONG: Final = 2_000


@dataclass(frozen=True)
class Span:
    """A stretch of text that both sides have (`` ``), or only the old one (``-``) or the new one (``+``)."""

    sign: Sign
    text: str


def word_diff(old: str, new: str) -> list[Span]:
    """Return two texts as one, with the words marked that only one of them has."""
    return [Span(sign, "".join(text for _, text in group)) for sign, group in groupby(_signed(old, new), _sign)]


def _signed(old: str, new: str) -> Iterator[tuple[Sign, str]]:
    before, after = parts_of(old), parts_of(new)
    matcher = SequenceMatcher(None, before, after, autojunk=max(len(before), len(after)) > _LONG)
    for kind, start, stop, first, last in matcher.get_opcodes():
        if kind == "equal":
            yield " ", "".join(before[start:stop])
            continue
        if stop > start:
            yield "-", "".join(before[start:stop])
        if last > first:
            yield "+", "".join(after[first:last])


def parts_of(text: str) -> list[str]:
    """Split a text into what is compared: words, spaces, signs, and single Chinese and Japanese characters."""
    return [str(part) for part in _PARTS.findall(text)]


def _sign(item: tuple[Sign, str]) -> Sign:
    return item[0]

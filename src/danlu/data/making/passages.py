"""Documents in blocks, cut into passages: by headings, then paragraphs, then sentences; of the text nothing is lost.

A table or a piece of code is cut only where it is longer than a whole passage, and then between its lines. Not for
how a file becomes blocks (``papers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import regex

_WIDE: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
# Where a sentence ends: behind a Chinese full stop, or behind an English one that white space follows.
_SENTENCE: Final = regex.compile(r"(?<=[。！？!?；])(?=\S)|(?<=[.!?][\"”’)]?)\s+(?=\S)|\n+")
# Characters a token of text in Latin letters; of Chinese it is about one (sample texts, rounded down).
_A_TOKEN: Final = 4


@dataclass(frozen=True)
class Block:
    """A paragraph, a list, a table, a piece of code, or a heading.

    Attributes:
        text: what it says.
        heading: its level if it is a heading, from 1; 0 for anything else.
        page: the page that it begins on, from 1; None where there are no pages.
        whole: its lines belong together (a table, code).
    """

    text: str
    heading: int = 0
    page: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
        text: what it says.
        file: the document.
        number: its number among all passages, from 1.
        headings: the headings that it stands under, the highest first.
        page: the page that it begins on; None where there are no pages.
    """

    text: str
    file: str
    number: int
    headings: tuple[str, ...] = ()
    page: int | None = None


def size_of(text: str) -> int:
    """Return about how many tokens a text takes, without asking a tokenizer."""
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _A_TOKEN)


def passages_of(file: str, blocks: Iterable[Block], most: int, first: int = 1) -> Iterator[Passage]:
    """Cut a document into passages of about ``most`` tokens at most (``size_of``).

    A heading begins a new passage and stands above it; where nothing follows it, it is a passage by itself, so that it
    is not lost.

    Args:
        file: what the document is called.
        blocks: its blocks.
        most: most tokens of a passage.
        first: number of its first passage.
    """
    path: list[tuple[int, str]] = []
    bare = False
    gathered: list[Block] = []
    number = first

    def flush() -> Iterator[Passage]:
        nonlocal number
        if gathered:
            text = "\n\n".join(block.text for block in gathered)
            yield Passage(text, file, number, tuple(title for _, title in path), gathered[0].page)
            number += 1
            gathered.clear()

    for block in blocks:
        if block.heading:
            yield from flush()
            if bare and block.heading <= path[-1][0]:
                _, title = path.pop()
                yield Passage(title, file, number, tuple(title for _, title in path), block.page)
                number += 1
            path = [item for item in path if item[0] < block.heading]
            path.append((block.heading, block.text))
            bare = True
            continue
        bare = False
        for part in _cut(block, most):
            if gathered and size_of("\n\n".join((*(item.text for item in gathered), part.text))) > most:
                yield from flush()
            gathered.append(part)
    yield from flush()
    if bare:
        _, title = path.pop()
        yield Passage(title, file, number, tuple(title for _, title in path))


def _cut(block: Block, most: int) -> Iterator[Block]:
    """Cut a block that is longer than a passage: between lines, or between sentences; a longer one between words."""
    if size_of(block.text) <= most:
        yield block
        return
    if block.whole:
        parts = block.text.splitlines()
        glue = "\n"
    else:
        parts = [part for part in _SENTENCE.split(block.text) if part]
        glue = "" if _WIDE.search(block.text[:200]) else " "
    gathered = ""
    for part in (piece for long in parts for piece in _pieces(long, most)):
        joined = gathered + glue + part if gathered else part
        if gathered and size_of(joined) > most:
            yield Block(gathered, page=block.page, whole=block.whole)
            gathered = part
        else:
            gathered = joined
    if gathered.strip():
        yield Block(gathered, page=block.page, whole=block.whole)


def _pieces(text: str, most: int) -> Iterator[str]:
    """Cut a sentence that is longer than a passage: at spaces, or anywhere where there are none."""
    while size_of(text) > most:
        end = most if _WIDE.search(text[: most * _A_TOKEN]) else most * _A_TOKEN
        space = text.rfind(" ", 1, end)
        at = space if space > end // 2 else end
        yield text[:at].strip()
        text = text[at:].strip()
    if text:
        yield text

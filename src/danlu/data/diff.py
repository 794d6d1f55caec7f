"""What differs between two sets of rows: rows added, removed, and changed; a row that has only moved is the same.

Rows are compared by hashes; only those that differ are read again. Changed is a row whose question is the same, or
nearly (``alike``), and that differs in something. Not for how it is shown (``word_diff``, the command line).
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from danlu.data.alike import MOST_COMPARED, clusters
from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.formats import AnyFormat
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.registering import line_of
from danlu.data.row_source import Source
from danlu.data.rows import JsonValue, Row
from danlu.data.split import normalise
from danlu.data.stored import RowFile, write_rows
from danlu.errors import DataError

Alike = Literal["same", "near"]
# A field that says nothing is the same as one that is not there.
_NOTHING: Final[tuple[JsonValue, ...]] = ("", None, [], {})


@dataclass(frozen=True)
class Changed:
    """A row that is on both sides and differs.

    Attributes:
        old: its number on the old side, from 0.
        new: its number on the new side, from 0.
        question: whether its question is the same, but for case and signs, or nearly.
    """

    old: int
    new: int
    question: Alike


@dataclass(frozen=True)
class RowDiff:
    """What differs between two sets of rows.

    Attributes:
        old: the rows of the old side.
        new: the rows of the new side.
        same: rows that are on both sides, wherever they stand.
        added: numbers of rows that only the new side has, from 0.
        removed: numbers of rows that only the old side has, from 0.
        changed: rows that differ.
        compared: questions were compared for being nearly equal; they are not where there are too many.
    """

    old: RowFile
    new: RowFile
    same: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    changed: tuple[Changed, ...]
    compared: bool = True


@dataclass(frozen=True)
class FieldChange:
    """A field that differs: its text on both sides, None where it is not there."""

    field: str
    old: str | None
    new: str | None


def rows_of(source: Source, scratch: Path) -> RowFile:
    """Return the rows of a source as a file of rows, written to ``scratch``.

    Raises:
        DataError: the file cannot be read as rows.
    """
    write_rows(scratch, (line_of(row) for row in source))
    return RowFile(scratch)


def diff_rows(old: RowFile, new: RowFile, families: tuple[AnyFormat, AnyFormat]) -> RowDiff:
    """Compare two sets of rows.

    Args:
        old: the rows of the old side.
        new: the rows of the new side.
        families: what the rows of each side are read as, to find their questions.
    """
    waiting: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for number, row in enumerate(old):
        waiting[_key(row)].append(number)
    added: list[int] = []
    same = 0
    for number, row in enumerate(new):
        found = waiting.get(_key(row))
        if found:
            found.popleft()
            same += 1
        else:
            added.append(number)
    removed = sorted(number for numbers in waiting.values() for number in numbers)
    del waiting
    asked = (_questions(old, removed, families[0]), _questions(new, added, families[1]))
    changed = _paired(removed, added, [[normalise(text) for text in side] for side in asked], "same")
    gone, come = {pair.old for pair in changed}, {pair.new for pair in changed}
    rest = [[at for at, number in enumerate(side) if number not in done] for side, done in
            ((removed, gone), (added, come))]  # fmt: skip
    compared = len(rest[0]) + len(rest[1]) <= MOST_COMPARED
    if compared and all(rest):
        texts = [[asked[side][at] for at in rest[side]] for side in (0, 1)]
        found_in = clusters([*texts[0], *texts[1]]).tolist()
        keys = [found_in[: len(texts[0])], found_in[len(texts[0]) :]]
        changed += _paired([removed[at] for at in rest[0]], [added[at] for at in rest[1]], keys, "near")
    gone, come = {pair.old for pair in changed}, {pair.new for pair in changed}
    return RowDiff(
        old=old,
        new=new,
        same=same,
        added=tuple(number for number in added if number not in come),
        removed=tuple(number for number in removed if number not in gone),
        changed=tuple(sorted(changed, key=lambda pair: pair.new)),
        compared=compared,
    )


def changed_fields(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> list[FieldChange]:
    """Return the fields in which two rows differ, in the order in which they stand."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if before == after or (before in _NOTHING and after in _NOTHING):
            continue
        found.append(FieldChange(name, text_of(before), text_of(after)))
    return found


def text_of(value: JsonValue) -> str | None:
    """Return a field's value as people read it; None for nothing."""
    if value in _NOTHING:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _key(row: Row) -> bytes:
    """Return the hash of what a row says: its fields in whatever order, without those that say nothing."""
    said = {name: value for name, value in row.values.items() if value not in _NOTHING}
    text = json.dumps(said, ensure_ascii=False, sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _questions(rows: RowFile, numbers: Sequence[int], family: AnyFormat) -> list[str]:
    """Return what rows ask, by which they are found on the other side."""
    asked = []
    for number in numbers:
        row = rows.row(number)
        try:
            asked.append(_asked(family.convert("", row)))
        except DataError:
            # Rows that cannot be used are compared as well: by their first text.
            asked.append(next((value for value in row.values.values() if isinstance(value, str) and value), ""))
    return asked


def _asked(item: Conversation | Document | Preference | Question) -> str:
    if isinstance(item, Document):
        return item.text
    if isinstance(item, Preference):
        return _asked(item.answers[0])
    if isinstance(item, Question):
        return "\n".join(message.content for message in item.messages)
    return "\n".join(message.content for message in item.messages[:-1])


def _paired(old: Sequence[int], new: Sequence[int], keys: Sequence[Sequence[object]], question: Alike) -> list[Changed]:
    """Pair rows of the same key, the first with the first."""
    waiting: defaultdict[object, deque[int]] = defaultdict(deque)
    for number, key in zip(old, keys[0], strict=True):
        waiting[key].append(number)
    pairs = []
    for number, key in zip(new, keys[1], strict=True):
        if waiting.get(key):
            pairs.append(Changed(waiting[key].popleft(), number, question))
    return pairs

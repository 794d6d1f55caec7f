"""What differs between two states of a data set: rows that came, went, or say something else, wherever they stand.

Of rows that are the same only a hash is kept, so that large data sets can be compared. Not for showing it (``cli``).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import regex

from danlu.data.alike import clusters
from danlu.data.conversations import Conversation
from danlu.data.datasets import Source
from danlu.data.documents import Document
from danlu.data.formats import AnyFormat
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.rows import Row
from danlu.data.split import normalise
from danlu.errors import DataError

# Beyond so many rows that came or went, questions that are only alike are not paired: the comparison would take longer
# than reading both.
_PAIRED: Final = 20_000
_TOKENS: Final = regex.compile(r"\p{Han}|[\p{Hiragana}\p{Katakana}]|[\p{L}\p{M}\p{N}_]+|\s+|.", regex.S)
Change = Literal["same", "removed", "added"]


@dataclass(frozen=True)
class Said:
    """A row in words.

    Attributes:
        row: its number, from 1.
        question: what is asked; of a text its first line.
        answer: what is answered; of a text all of it, of judged answers both.
    """

    row: int
    question: str
    answer: str


@dataclass
class Difference:
    """What differs.

    Attributes:
        same: rows that are in both.
        removed: rows that are only in the old one.
        added: rows that are only in the new one.
        changed: the same question, or nearly, with something else about it.
    """

    same: int = 0
    removed: list[Said] = field(default_factory=list)
    added: list[Said] = field(default_factory=list)
    changed: list[tuple[Said, Said]] = field(default_factory=list)


def difference(old: Source, new: Source) -> Difference:
    """Compare two states of a data set, or any two files of rows.

    Raises:
        DataError: one of them cannot be read.
    """
    before, after = Counter(map(_hash, old)), Counter(map(_hash, new))
    found = Difference(same=(before & after).total())
    gone, come = _rows(old, before - after), _rows(new, after - before)
    found.changed = _paired(gone, come, [normalise(item.question) for item in gone], come_keys=None)
    gone, come = _rest(gone, come, found.changed)
    if gone and come and len(gone) + len(come) <= _PAIRED:
        labels = clusters([item.question for item in (*gone, *come)]).tolist()
        alike = _paired(gone, come, labels[: len(gone)], come_keys=labels[len(gone) :])
        gone, come = _rest(gone, come, alike)
        found.changed = sorted([*found.changed, *alike], key=lambda pair: pair[1].row)
    found.removed, found.added = gone, come
    return found


def words_changed(old: str, new: str) -> list[tuple[Change, str]]:
    """Return two texts as one: what is in both, what was removed, what was added, in order; Chinese by characters."""
    before, after = _TOKENS.findall(old), _TOKENS.findall(new)
    parts: list[tuple[Change, str]] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(before[i:j])))
            continue
        if j > i:
            parts.append(("removed", "".join(before[i:j])))
        if m > k:
            parts.append(("added", "".join(after[k:m])))
    return parts


def _rows(source: Source, wanted: Counter[bytes]) -> list[Said]:
    """Return the rows with these hashes, each as often as it is wanted."""
    left = wanted.copy()
    family: AnyFormat | None = source.family() if left else None
    found = []
    for row in source if left else ():
        key = _hash(row)
        if left[key] > 0:
            left[key] -= 1
            found.append(_said(source, family, row))
    return found


def _said(source: Source, family: AnyFormat | None, row: Row) -> Said:
    assert family is not None
    try:
        item = family.convert(source.path, row)
    except DataError:
        text = json.dumps(row.values, ensure_ascii=False)
        return Said(row.index, text, text)
    return Said(row.index, *_texts(item))


def _texts(item: Any) -> tuple[str, str]:
    if isinstance(item, Document):
        return item.text.strip().split("\n", 1)[0], item.text
    if isinstance(item, Preference):
        return item.answers[0].question, "\n".join(answer.answer for answer in item.answers)
    if isinstance(item, Question):
        return item.messages[-1].content, ""
    assert isinstance(item, Conversation)
    others = [
        f"{message.role}: {message.content}" for message in item.messages[:-1] if message.content != item.question
    ]
    return item.question, "\n".join([*others, item.answer]) if others else item.answer


def _paired(
    gone: Sequence[Said], come: Sequence[Said], gone_keys: Iterable[Any], come_keys: Iterable[Any] | None
) -> list[tuple[Said, Said]]:
    """Pair rows with the same key, in their order."""
    keys = [normalise(item.question) for item in come] if come_keys is None else come_keys
    by_key: defaultdict[Any, list[Said]] = defaultdict(list)
    for key, item in zip(keys, come, strict=True):
        by_key[key].append(item)
    pairs = []
    for key, item in zip(gone_keys, gone, strict=True):
        if by_key[key]:
            pairs.append((item, by_key[key].pop(0)))
    return sorted(pairs, key=lambda pair: pair[1].row)


def _rest(
    gone: Sequence[Said], come: Sequence[Said], pairs: Sequence[tuple[Said, Said]]
) -> tuple[list[Said], list[Said]]:
    old, new = {pair[0].row for pair in pairs}, {pair[1].row for pair in pairs}
    return [item for item in gone if item.row not in old], [item for item in come if item.row not in new]


def _hash(row: Row) -> bytes:
    text = json.dumps(row.values, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()

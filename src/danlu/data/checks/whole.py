"""What can only be told from all rows: copies, contradictions, odd ones out, what is missing, what is too much.

Of each row so little is kept (some 100 bytes and its question) that files of millions of rows can be checked.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np

from danlu.data.alike import MOST_COMPARED, Known, clusters
from danlu.data.checks.content import DECLINES, breaks_off, ends_well, script_of
from danlu.data.checks.findings import Findings
from danlu.data.conversations import Conversation
from danlu.data.split import normalise
from danlu.models.messages import Message

# Below this many rows a model learns these sentences, not the subject (research: 91 to 108 rows in the identity sets
# of two widely used tools; at least 100 rows recommended by Unsloth's data guide).
FEW_ROWS: Final = 90
# Shorter answers (names, numbers, labels) rarely end with a full stop.
_SENTENCE: Final = 80
# So many of the answers of that length must end well before one that does not is odd.
_USUAL: Final = 0.85
_ENOUGH: Final = 20
_DOMINATING: Final = 0.2
# An answer of 20 times the usual length is another kind of row (a document that slipped in).
_LONG: Final = 20
_LONG_CHARACTERS: Final = 3000
_NAMED: Final = 8


@dataclass
class Gathered:
    """What is kept of the rows that can be learned."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    said: array[int] = field(default_factory=lambda: array("Q"))
    asked: array[int] = field(default_factory=lambda: array("Q"))
    answered: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    questions: list[str] = field(default_factory=list)
    unended: list[int] = field(default_factory=list)
    sentences: int = 0
    scripts: Counter[tuple[str, str]] = field(default_factory=Counter)
    odd_scripts: defaultdict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    declines: int = 0

    def add(self, item: Conversation) -> None:
        """Take in a row."""
        number = len(self.rows)
        self.rows.append(item.row)
        self.lines.append(item.line)
        self.said.append(_hash(turns_text(item.messages)))
        self.asked.append(_hash("\0".join(normalise(message.content) for message in item.messages[:-1])))
        answer = item.answer
        self.answered.append(_hash(normalise(answer)))
        self.lengths.append(len(answer))
        if number < MOST_COMPARED:
            self.questions.append(item.question)
        if len(answer) >= _SENTENCE:
            self.sentences += 1
            if not ends_well(answer) or breaks_off(answer):
                self.unended.append(number)
        pair = (script_of(item.question), script_of(answer))
        if pair[0] and pair[1]:
            known = (pair[0], pair[1])
            self.scripts[known] += 1
            if pair[0] != pair[1]:
                self.odd_scripts[known].append(number)
        self.declines += DECLINES.search(answer[:400]) is not None


def turns_text(messages: Sequence[Message]) -> str:
    """Return everything that is said, for telling equal rows."""
    parts = ((turn.role, turn.reasoning, turn.content, turn.tool_calls) for turn in messages)
    return "\0".join(":".join(map(str, part)) for part in parts)


def look_at_all(found: Gathered, findings: Findings, known: Known | None) -> tuple[int, int | None]:
    """Note what all rows together show.

    Args:
        found: what is kept of the rows.
        findings: takes the problems.
        known: the questions that are measured on; None where there are none.

    Returns:
        How many rows are copies, and how many ask what is measured on (None without ``known``).
    """
    copies = _copies(found, findings)
    _contradictions(found, findings)
    _odd_ones(found, findings)
    _like_questions(found, findings)
    leaks = None if known is None else _leaks(found, findings, known)
    _answers(found, findings)
    return copies, leaks


def _copies(found: Gathered, findings: Findings) -> int:
    count = 0
    for number, first in _again(found.said):
        count += 1
        findings.add("data.duplicate", "warning", found.rows[number], found.lines[number], other=found.rows[first])
    return count


def _contradictions(found: Gathered, findings: Findings) -> None:
    for number, first in _again(found.asked):
        if found.answered[number] != found.answered[first]:
            row, line = found.rows[number], found.lines[number]
            findings.add("data.contradiction", "warning", row, line, other=found.rows[first])


def _odd_ones(found: Gathered, findings: Findings) -> None:
    if found.sentences >= _ENOUGH and len(found.unended) <= (1 - _USUAL) * found.sentences:
        for number in found.unended:
            findings.add("checks.cut_off", "warning", found.rows[number], found.lines[number])
    total = found.scripts.total()
    for (asked, said), numbers in found.odd_scripts.items():
        if total >= _ENOUGH and len(numbers) <= (1 - _USUAL) * total:
            for number in numbers:
                findings.add(
                    "checks.other_language", "info", found.rows[number], found.lines[number], asked=asked, said=said
                )
    lengths = np.array(found.lengths, dtype=np.int64)
    if len(lengths) >= _ENOUGH:
        most = max(_LONG_CHARACTERS, _LONG * int(np.median(lengths)))
        for number in np.flatnonzero(lengths > most).tolist():
            row, line = found.rows[number], found.lines[number]
            findings.add("checks.long_answer", "info", row, line, characters=int(lengths[number]))


def _like_questions(found: Gathered, findings: Findings) -> None:
    if len(found.rows) > MOST_COMPARED:
        findings.add("checks.not_compared", "info", rows=len(found.rows) - MOST_COMPARED, most=MOST_COMPARED)
    labels = clusters(found.questions)
    same: list[tuple[int, int]] = []
    other: list[tuple[int, int]] = []
    asked = np.array(found.asked, dtype=np.uint64)
    for number in np.flatnonzero(labels != np.arange(len(labels))).tolist():
        first = int(labels[number])
        if asked[number] == asked[first]:
            continue  # the same words: a copy or a contradiction
        (same if found.answered[number] == found.answered[first] else other).append((number, first))
    for code, pairs in (("checks.alike", same), ("checks.alike_answered_otherwise", other)):
        if pairs:
            findings.add(code, "info", rows=len(pairs), named=_named(found, pairs))


def _leaks(found: Gathered, findings: Findings, known: Known) -> int:
    leaked = [number for number, question in enumerate(found.questions) if known.has(question)]
    for number in leaked:
        findings.add("checks.leak", "warning", found.rows[number], found.lines[number])
    return len(leaked)


def _answers(found: Gathered, findings: Findings) -> None:
    rows = len(found.rows)
    if not rows:
        return
    answers, counts = np.unique(np.array(found.answered, dtype=np.uint64), return_counts=True)
    most = int(counts.max())
    if most >= 10 and most > _DOMINATING * rows and len(answers) > 1:
        number = int(np.flatnonzero(np.array(found.answered, dtype=np.uint64) == answers[counts.argmax()])[0])
        findings.add("checks.one_answer", "warning", rows=most, of=rows, row_named=found.rows[number])
    if rows >= FEW_ROWS and not found.declines:
        findings.add("checks.no_decline", "info", rows=rows)


def _again(hashes: array[int]) -> Iterator[tuple[int, int]]:
    """Go through the items that were there before, each with the first one like it, in their order."""
    values = np.array(hashes, dtype=np.uint64)
    _, firsts, groups = np.unique(values, return_index=True, return_inverse=True)
    origin = firsts[groups]
    for number in np.flatnonzero(origin != np.arange(len(values))).tolist():
        yield number, int(origin[number])


def _named(found: Gathered, pairs: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(f"{found.rows[number]}≈{found.rows[first]}" for number, first in pairs[:_NAMED])
    return named + (" …" if len(pairs) > _NAMED else "")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")

"""Which questions ask the same in nearly the same words: found among many at once, judged from their own texts alone.

Two questions are alike when their numbers are the same and so are nearly all of their words that carry meaning. What
means the same in other words is not found. Not for texts that are equal but for case and signs (``split.normalise``).
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import regex

from danlu.data.sequences import Ints
from danlu.data.split import normalise

# Own rule, tried on the sample sets: of two sets of words one holds the other and most of it, or they are the same but
# for one word in twenty. "When are you open?" and "when do you open" are alike; "make tea" and "make coffee" are not.
CONTAINED: Final = 0.6
NEARLY_EQUAL: Final = 0.9
# Min-wise hashing (Broder 1997, "On the resemblance and containment of documents") in bands (Leskovec, Rajaraman,
# Ullman, "Mining of massive datasets", chapter 3): of pairs with a Jaccard index of 0.6, 99.2 % share a band.
# More questions than this are not compared with each other: what they are compared by takes 1.5 kB each (measured).
MOST_COMPARED: Final = 300_000
_BANDS: Final = 20
_ROWS: Final = 3
_SEED: Final = 20_240_601
# In a crowded bucket each is compared with the first few only; those are like each other if the bucket is right.
_COMPARED: Final = 8
_BLOCK: Final = 20_000
_PARTS: Final = regex.compile(r"\p{N}+|[\p{Han}\p{Hiragana}\p{Katakana}]+|[\p{L}\p{M}]+")
_IDEOGRAPHS: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
# Words and particles without which a question asks the same.
_EMPTY: Final = frozenset(
    word
    for line in (
        "a an the is are was were be been am do does did i you your yours my me we our us it its this that these those",
        "of to in on at for from with by and or as can could would will shall should may might must please",
        "s t re ve ll d m",
    )
    for word in line.split()
)
_PARTICLES: Final = regex.compile("请问|请|吗|呢|吧|啊|呀|嘛|哦|的|了|一下|您|你们|你|我想知道|能不能|可以")


@dataclass(frozen=True)
class Meaning:
    """What a question is compared by.

    Attributes:
        words: hashes of its words that carry meaning; of Chinese and Japanese, of pairs of characters.
        numbers: its numbers, in the order in which they stand.
    """

    words: frozenset[int]
    numbers: tuple[str, ...]


def meaning_of(question: str) -> Meaning:
    """Return what a question is compared by."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    numbers: list[str] = []
    words: list[str] = []
    every: list[str] = []
    for part in _PARTS.findall(folded):
        if part[0].isnumeric() and not _IDEOGRAPHS.match(part):
            numbers.append(part)
        elif _IDEOGRAPHS.match(part):
            core = _PARTICLES.sub("", part) or part
            pairs = [core[at : at + 2] for at in range(len(core) - 1)] or [core]
            words += pairs
            every += pairs
        else:
            every.append(part)
            if part not in _EMPTY:
                words.append(part)
    # Of "Who are you?" and the like every word counts.
    chosen = words if len(words) > 1 else every
    return Meaning(frozenset(zlib.crc32(word.encode()) for word in chosen), tuple(numbers))


def are_alike(one: Meaning, other: Meaning) -> bool:
    """Say whether two questions ask the same in nearly the same words."""
    if one.numbers != other.numbers:
        return False
    common = len(one.words & other.words)
    union = len(one.words) + len(other.words) - common
    if not union:
        return True
    index = common / union
    return index >= NEARLY_EQUAL or (index >= CONTAINED and common == min(len(one.words), len(other.words)))


def clusters(questions: Sequence[str]) -> Ints:
    """Return for each question the number of the first one of its cluster, int64, shape [N].

    A cluster is everything that is alike from one question to the next; questions that are equal but for case and
    signs are always in one. The result depends on nothing but the texts and their order.
    """
    parents = list(range(len(questions)))
    meanings = [meaning_of(question) for question in questions]
    first: dict[str, int] = {}
    for number, question in enumerate(questions):
        _join(parents, number, first.setdefault(normalise(question), number))
    if len(questions) > 1:
        for one, other in _candidates(meanings):
            if _root(parents, one) != _root(parents, other) and are_alike(meanings[one], meanings[other]):
                _join(parents, one, other)
    return np.array([_root(parents, number) for number in range(len(questions))], dtype=np.int64)


class Known:
    """Questions among which others are looked for.

    Args:
        questions: the questions.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        self._keys: set[str] = set()
        meanings: dict[Meaning, None] = {}
        for question in questions:
            self._keys.add(normalise(question))
            meanings[meaning_of(question)] = None
        self._meanings = list(meanings)
        self._bands = [dict[int, list[int]]() for _ in range(_BANDS)]
        for start in range(0, len(self._meanings), _BLOCK):
            for offset, row in enumerate(_bands(self._meanings[start : start + _BLOCK]).tolist()):
                for band, bucket in zip(self._bands, row, strict=True):
                    band.setdefault(bucket, []).append(start + offset)

    def has(self, question: str) -> bool:
        """Say whether a question is among them, word by word or nearly."""
        if normalise(question) in self._keys:
            return True
        meaning = meaning_of(question)
        row = _bands([meaning])[0].tolist()
        found = (band.get(bucket, ()) for band, bucket in zip(self._bands, row, strict=True))
        return any(are_alike(meaning, self._meanings[number]) for number in dict.fromkeys(chain.from_iterable(found)))


def _candidates(meanings: Sequence[Meaning]) -> Iterable[tuple[int, int]]:
    """Go through pairs that share a band."""
    bands = np.concatenate([_bands(meanings[at : at + _BLOCK]) for at in range(0, len(meanings), _BLOCK)])
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        ends = np.append(starts[1:], len(ordered))
        for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
            members = order[start:end].tolist()
            for at in range(1, len(members)):
                for other in members[: min(at, _COMPARED)]:
                    yield members[at], other


def _bands(meanings: Sequence[Meaning]) -> npt.NDArray[np.uint64]:
    """Return the hash of each band of the min-wise hashes of each set of words, shape [N, bands]."""
    draw = np.random.default_rng(_SEED)
    factors = draw.integers(1, 2**63, size=_BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
    shifts = draw.integers(0, 2**63, size=_BANDS * _ROWS, dtype=np.uint64)
    sizes = [max(len(meaning.words), 1) for meaning in meanings]
    # A question without words is compared by its numbers alone, and gets the word 0.
    words = np.fromiter(
        chain.from_iterable(sorted(meaning.words) or (0,) for meaning in meanings), dtype=np.uint64, count=sum(sizes)
    )
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    signature = np.empty((len(meanings), _BANDS * _ROWS), dtype=np.uint64)
    for column, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
        signature[:, column] = np.minimum.reduceat((words * factor + shift) >> np.uint64(24), starts)
    numbers = np.array([zlib.crc32(" ".join(meaning.numbers).encode()) for meaning in meanings], dtype=np.uint64)
    folded = np.zeros((len(meanings), _BANDS), dtype=np.uint64)
    for row in range(_ROWS):
        folded = folded * np.uint64(0x9E3779B97F4A7C15) + signature[:, row::_ROWS]
    return folded * np.uint64(0x9E3779B97F4A7C15) + numbers[:, None]


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first

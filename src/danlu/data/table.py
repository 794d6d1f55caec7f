"""Examples that lie in files instead of memory: a table of token ids that is read where it is needed.

A table is written once, example after example, and looks like a list of examples afterwards. What is asked of all
examples at once (how long they are, how much of each is learned) comes from arrays. Not for how examples are made
(``encode``, ``texts``), nor for which table belongs to which data (``encoded``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from danlu.data.examples import Example
from danlu.data.sequences import Chained, Ints, LazySequence, Selected
from danlu.files import disk_errors

_N = TypeVar("_N", np.int32, np.uint8)

_IDS: Final = "ids.i32"
_LEARN: Final = "learn.u1"
_COLUMNS: Final = "columns.npz"
# Columns are gathered in lists and turned into arrays in blocks: a Python integer takes 32 bytes, one in an array 8.
_BLOCK: Final = 65_536


@dataclass(frozen=True)
class Columns:
    """What is known of each of N examples beside its tokens.

    Attributes:
        offsets: where each example's tokens begin, and where the last one's end; int64, shape [N + 1].
        supervised: learned tokens of each, int64, shape [N].
        row: number of the row it came from, int64, shape [N].
        origin: number of the item that it was made of (a conversation may give several), from 0; int64, shape [N].
        weight: how much its tokens count, float64, shape [N].
    """

    offsets: Ints
    supervised: Ints
    row: Ints
    origin: Ints
    weight: npt.NDArray[np.float64]


class ExampleTable(LazySequence[Example]):
    """The examples of a folder that ``TableWriter`` has written, each a single text.

    Args:
        folder: the folder.

    Attributes:
        columns: what is known of the examples beside their tokens.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / _COLUMNS) as stored:
            self.columns = Columns(**{name: stored[name] for name in Columns.__annotations__})
        tokens = int(self.columns.offsets[-1])
        # A file of no bytes cannot be mapped.
        self._ids = _mapped(folder / _IDS, np.dtype(np.int32), tokens)
        self._learn = _mapped(folder / _LEARN, np.dtype(np.uint8), tokens)

    def __len__(self) -> int:
        return len(self.columns.row)

    def item(self, number: int) -> Example:
        """Return an example by its number."""
        start, stop = (int(place) for place in self.columns.offsets[number : number + 2])
        return Example(
            tuple(self._ids[start:stop].tolist()),
            tuple(self._learn[start:stop].astype(bool).tolist()),
            int(self.columns.row[number]),
            weight=float(self.columns.weight[number]),
        )

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, int64, shape [N]."""
        return np.diff(self.columns.offsets)


class TableWriter:
    """Writes a table into an empty folder, within ``with``; it can be read when that is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self._ids: IO[bytes] = (folder / _IDS).open("wb")
        self._learn: IO[bytes] = (folder / _LEARN).open("wb")
        self._pending: list[tuple[int, int, int, int, float]] = []
        self._blocks: list[tuple[Ints, npt.NDArray[np.float64]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(OSError):  # what went wrong is on its way already
                self._ids.close()
                self._learn.close()
            return
        with disk_errors(self.folder):
            self._ids.close()
            self._learn.close()
        self._write_columns()

    def add(self, ids: Sequence[int], learn: Sequence[bool], row: int, origin: int, weight: float = 1.0) -> None:
        """Append an example.

        Args:
            ids: token ids, length T.
            learn: which of them are learned, length T.
            row: number of the row it came from.
            origin: number of the item it was made of, from 0.
            weight: how much its tokens count.

        Raises:
            MachineError: the disk is full.
        """
        with disk_errors(self.folder):
            self._ids.write(np.asarray(ids, dtype=np.int32).tobytes())
            marks = np.asarray(learn, dtype=np.uint8)
            self._learn.write(marks.tobytes())
        self._pending.append((len(ids), int(marks[1:].sum()), row, origin, weight))
        self.count += 1
        if len(self._pending) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            numbers = np.array([entry[:4] for entry in self._pending], dtype=np.int64)
            weights = np.array([entry[4] for entry in self._pending], dtype=np.float64)
            self._blocks.append((numbers, weights))
            self._pending = []

    def _write_columns(self) -> None:
        self._flush()
        empty = (np.empty((0, 4), dtype=np.int64), np.empty(0, dtype=np.float64))
        blocks = self._blocks or [empty]
        numbers = np.concatenate([block[0] for block in blocks])
        with disk_errors(self.folder):
            np.savez(
                self.folder / _COLUMNS,
                offsets=np.concatenate([[0], np.cumsum(numbers[:, 0])]),
                supervised=numbers[:, 1],
                row=numbers[:, 2],
                origin=numbers[:, 3],
                weight=np.concatenate([block[1] for block in blocks]),
            )


class Packed(LazySequence[Example]):
    """Single texts packed into examples, joined where they are asked for.

    Args:
        pieces: the texts.
        bins: numbers of the texts in each example, in the order in which they lie there.
        text: they are plain texts beside answers.
    """

    def __init__(self, pieces: Sequence[Example], bins: Sequence[Sequence[int]], *, text: bool = False) -> None:
        self.pieces = pieces
        self.bins = bins
        self.text = text

    def __len__(self) -> int:
        return len(self.bins)

    def item(self, number: int) -> Example:
        """Return an example by its number."""
        members = [self.pieces[piece] for piece in self.bins[number]]
        if len(members) == 1:
            return replace(members[0], text=self.text)
        return Example(
            tuple(chain.from_iterable(piece.input_ids for piece in members)),
            tuple(chain.from_iterable(piece.learn for piece in members)),
            members[0].row,
            tuple(len(piece.input_ids) for piece in members),
            text=self.text,
        )

    def sums(self, counts: Ints) -> Ints:
        """Return the sums over each example of what is counted of each piece, int64, shape [N]."""
        return np.array([int(counts[list(members)].sum()) for members in self.bins], dtype=np.int64)


def lengths_of(examples: Sequence[Example]) -> Ints:
    """Return how many tokens each example has, int64, shape [N]; of a table without reading its tokens."""
    if isinstance(examples, ExampleTable):
        return examples.lengths
    if isinstance(examples, Selected):
        return lengths_of(examples.items)[examples.numbers]
    if isinstance(examples, Chained):
        return _joined(lengths_of(part) for part in examples.parts)
    if isinstance(examples, Packed):
        return examples.sums(lengths_of(examples.pieces))
    return np.array([len(example.input_ids) for example in examples], dtype=np.int64)


def supervised_of(examples: Sequence[Example]) -> Ints:
    """Return how many tokens of each example are learned, int64, shape [N]; of a table without reading its tokens."""
    if isinstance(examples, ExampleTable):
        return examples.columns.supervised
    if isinstance(examples, Selected):
        return supervised_of(examples.items)[examples.numbers]
    if isinstance(examples, Chained):
        return _joined(supervised_of(part) for part in examples.parts)
    if isinstance(examples, Packed):
        return examples.sums(supervised_of(examples.pieces))
    return np.array([example.supervised for example in examples], dtype=np.int64)


def texts_of(examples: Sequence[Example]) -> npt.NDArray[np.bool_]:
    """Return which examples are plain texts beside answers, bool, shape [N]; of a table without reading its tokens."""
    if isinstance(examples, ExampleTable):
        return np.zeros(len(examples), dtype=np.bool_)
    if isinstance(examples, Selected):
        return texts_of(examples.items)[examples.numbers]
    if isinstance(examples, Chained):
        parts = [texts_of(part) for part in examples.parts]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.bool_)
    if isinstance(examples, Packed):
        return np.full(len(examples), examples.text)
    return np.array([example.text for example in examples], dtype=np.bool_)


def _joined(arrays: Iterable[Ints]) -> Ints:
    return np.concatenate(list(chain([np.empty(0, dtype=np.int64)], arrays)))


def _mapped(path: Path, kind: np.dtype[_N], count: int) -> npt.NDArray[_N]:
    return np.memmap(path, dtype=kind, mode="r", shape=(count,)) if count else np.empty(0, dtype=kind)

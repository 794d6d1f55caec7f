"""Sequences that make or fetch their items where they are asked for, so that large data need not lie in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_T = TypeVar("_T", covariant=True)


class LazySequence(Sequence[_T]):
    """A sequence of which only ``__len__`` and ``item`` have to be written; equal to any sequence of equal items."""

    @abstractmethod
    def item(self, number: int) -> _T:
        """Return an item by its number, 0 to below the length."""

    @overload
    def __getitem__(self, at: int) -> _T: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[_T]: ...

    def __getitem__(self, at: int | slice) -> _T | Sequence[_T]:
        if isinstance(at, slice):
            return Selected(self, np.arange(len(self))[at])
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(at)
        return self.item(number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Selected(LazySequence[_T]):
    """Some items of a sequence, in an order of their own, without copying any.

    Args:
        items: the sequence.
        numbers: which of its items, int64, shape [N].
    """

    def __init__(self, items: Sequence[_T], numbers: Ints) -> None:
        self.items = items
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def item(self, number: int) -> _T:
        """Return an item by its number."""
        return self.items[int(self.numbers[number])]


class Chained(LazySequence[_T]):
    """Sequences one after the other, without copying any.

    Args:
        parts: the sequences.
    """

    def __init__(self, parts: Sequence[Sequence[_T]]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def item(self, number: int) -> _T:
        """Return an item by its number."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        return self.parts[part][number - (int(self._ends[part - 1]) if part else 0)]

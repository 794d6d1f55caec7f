"""The rows of a registered version, read from its file where they are needed instead of being held in memory.

``rows.jsonl`` is written by Danlu alone: one row a line, in UTF-8. Not for files of people (``rows``).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from danlu.data.rows import Row
from danlu.data.sequences import Ints, LazySequence
from danlu.errors import DataError
from danlu.files import disk_errors

_T = TypeVar("_T")
_BLOCK = 1 << 24


class RowFile:
    """The rows of ``rows.jsonl``.

    Args:
        path: the file.

    Raises:
        DataError: it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._starts = _line_starts(path)
        except FileNotFoundError:
            raise DataError("data.missing_file", str(path)) from None
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def row(self, number: int) -> Row:
        """Return a row by its number, from 0.

        Raises:
            DataError: the line is damaged.
        """
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start, stop = (int(place) for place in self._starts[number : number + 2])
        return self._parsed(number, self._map[start:stop])

    def close(self) -> None:
        """Let go of the file, which some systems need before it can be removed; it may be read again."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows in order without mapping the file: what was read is not kept."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                yield self._parsed(number, line)

    def _parsed(self, number: int, line: bytes) -> Row:
        try:
            values = json.loads(line)
        except ValueError as error:
            where = f"{self.path}:{number + 1}"
            raise DataError("data.not_json", where, reason=str(error)) from None
        return Row(number + 1, number + 1, values)


class Converted(LazySequence[_T]):
    """What the rows of a file mean, made anew whenever it is asked for: nothing of it stays in memory.

    Args:
        rows: the rows.
        convert: says what a row means; it has been tried on every row when the version was registered.
    """

    def __init__(self, rows: RowFile, convert: Callable[[Row], _T]) -> None:
        self.rows = rows
        self._convert = convert

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> _T:
        """Return what a row means, by its number."""
        return self._convert(self.rows.row(number))

    def __iter__(self) -> Iterator[_T]:
        return map(self._convert, self.rows)


def write_rows(path: Path, lines: Iterator[str]) -> None:
    """Write rows, each a line without its end.

    Raises:
        MachineError: the disk is full.
    """
    with disk_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")


def _line_starts(path: Path) -> Ints:
    """Return where each line begins, and the end of the last one."""
    found = [np.zeros(1, dtype=np.int64)]
    at = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + at + 1)
            at += len(block)
    return np.concatenate(found)

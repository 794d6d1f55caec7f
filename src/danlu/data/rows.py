"""Files to rows, whatever kind of file: JSON, tables, spreadsheets, Parquet, texts, and folders and archives of them.

Row by row: no file is held in memory as a whole, except a text file, which is one row, and a spreadsheet. Not for what
a row means. Everything that is wrong with a file is said with file, line and remedy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from danlu.data.sources.base import JsonValue, Member, kind_of
from danlu.data.sources.encodings import encoding_of, texts
from danlu.data.sources.facts import FileFacts, MemberFacts
from danlu.data.sources.hub import hub_name
from danlu.data.sources.members import DOCUMENT_FIELD, Reading, Walk
from danlu.errors import DataError
from danlu.i18n import t

__all__ = [
    "DOCUMENT_FIELD", "JsonValue", "Progress", "Row", "RowStream", "at_line", "kind_of", "lines_of", "place",
    "read_rows", "read_text", "stream_rows",
]  # fmt: skip

# A field of more than a million characters is a file that slipped into a row: at best one row of 250,000 tokens.
MAX_FIELD_CHARACTERS: Final = 1_000_000
# How often progress is told, in seconds, and after how many rows the clock is looked at.
_TELL_EVERY: Final = 0.1
_LOOK_EVERY: Final = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        index: its number, from 1; in a folder or an archive it counts on from file to file.
        line: line of the file it begins on, from 1; in a spreadsheet the sheet's row, in Parquet the number of the row.
        values: its fields.
        file: name of the file within a folder or an archive; empty for a file by itself.
    """

    index: int
    line: int
    values: dict[str, JsonValue]
    file: str = ""


class RowStream(Iterator[Row]):
    """The rows of a path, one after the other, and what is found out about its files on the way.

    To be gone through once. What an archive unpacked is removed at the end, or by ``close``.
    """

    def __init__(self, path: Path | str, progress: Progress | None = None) -> None:
        self._path = path
        self._progress = progress
        self._walk = Walk(path)
        self._members: list[MemberFacts] = []
        self._rows_before = 0
        self._count = 0
        self._rows: Generator[Row, None, None] = self._read()

    def __iter__(self) -> RowStream:
        """Return itself."""
        return self

    def __next__(self) -> Row:
        """Return the next row.

        Raises:
            DataError: see ``stream_rows``.
        """
        return next(self._rows)

    def close(self) -> None:
        """Stop reading and remove what was unpacked."""
        self._rows.close()

    @property
    def facts(self) -> FileFacts:
        """What is known by now about the files: their kinds and encodings, and what was passed over."""
        members = self._members
        if members:
            members = [*members[:-1], replace(members[-1], rows=self._count - self._rows_before)]
        return FileFacts(tuple(members), tuple(self._walk.skipped))

    def _read(self) -> Generator[Row, None, None]:
        path = self._path
        told = time.monotonic()
        for reading in self._walk.files():
            self._begin(reading)
            name = reading.member.name
            for line, values in reading.rows:
                self._count += 1
                for field, value in values.items():
                    if value.__class__ is not str:
                        for inner in _texts(value):
                            _check_text(path, self._count, line, name, field, inner)
                    elif not (value.isascii() and len(value) <= MAX_FIELD_CHARACTERS):
                        _check_text(path, self._count, line, name, field, value)
                yield Row(self._count, line, values, name)
                if self._progress is not None and self._count % _LOOK_EVERY == 0:
                    now = time.monotonic()
                    if now - told >= _TELL_EVERY:
                        told = now
                        self._progress(self._walk.done, self._walk.total)
        if self._progress is not None:
            self._progress(self._walk.total, self._walk.total)
        if not self._count:
            raise DataError("data.no_rows", str(path))

    def _begin(self, reading: Reading) -> None:
        if self._members:
            self._members[-1] = replace(self._members[-1], rows=self._count - self._rows_before)
        self._rows_before = self._count
        self._members.append(reading.facts)


def read_rows(path: Path | str) -> list[Row]:
    """Read all rows; see ``stream_rows``."""
    return list(stream_rows(path))


def stream_rows(path: Path | str, progress: Progress | None = None) -> RowStream:
    """Go through the rows of a file of any kind, of a folder or an archive of them, or of a data set of a hub.

    The kind is told by the first bytes of a file, by the end of its name, or by its first characters.

    Args:
        path: the file or folder, or ``hf:OWNER/NAME[@REVISION][:SPLIT]`` or ``ms:…``.
        progress: is told bytes done and bytes in all, at most ten times a second, and once at the end; bytes are those
            on the disk, so packed ones where files are packed, and 0 in all where that is not known.

    Raises:
        DataError: on going through the rows: missing, empty, in an encoding that is not read, damaged, not a list of
            objects, a text that is no Unicode, or one beyond all measure.
    """
    return RowStream(path, progress)


def place(path: Path | str, row: Row, field: str | None = None) -> str:
    """Return where something stands, for people: ``file, row 3 (line 17), field output``."""
    return _place(path, row.index, row.line, row.file, field)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: missing, a folder, not readable, in an encoding that is not read, or nothing but white space.
    """
    member = Member(path, str(path))
    text = "".join(texts(member, encoding_of(member)))
    if not text.strip():
        raise DataError("data.empty_file", str(path))
    return text


def at_line(path: Path, line: int) -> str:
    """Return a place in a file, for people: ``file, line 17``."""
    return t("data.place_line", file=path, line=line)


def lines_of(text: str) -> list[str]:
    """Split JSON Lines at line feeds only: U+2028 and the like may stand inside a JSON text, and do."""
    return text.split("\n")


def _place(path: Path | str, index: int, line: int, file: str, field: str | None) -> str:
    hub = hub_name(path)
    name = str(hub) if hub is not None else path.name if isinstance(path, Path) else path
    if file:
        name = f"{name}/{file}"
    if field is None:
        return t("data.place_row", file=name, row=index, line=line)
    return t("data.place_field", file=name, row=index, line=line, field=field)


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value if isinstance(value, list) else value.values():
            yield from _texts(inner)


def _check_text(path: Path | str, index: int, line: int, file: str, field: str, text: str) -> None:
    if len(text) > MAX_FIELD_CHARACTERS and field != DOCUMENT_FIELD:
        where = _place(path, index, line, file, field)
        raise DataError("data.field_too_long", where, characters=len(text), most=MAX_FIELD_CHARACTERS)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can write half of a character (\ud83d alone); no tokenizer and no file can take it.
        escape = f"\\u{ord(text[error.start]):04x}"
        raise DataError("data.half_character", _place(path, index, line, file, field), escape=escape) from None

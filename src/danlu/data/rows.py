"""Files to rows, whatever kind of file: JSON, tables, spreadsheets, Parquet, texts, and folders and archives of them.

Row by row: no file is held in memory as a whole, except a text file, which is one row. Not for what a row means
(``formats``). Everything that is wrong with a file is said with file, line and remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.data.readers import rows_by_plugin
from danlu.data.sources.archives import folder_members, gzip_member, zip_members
from danlu.data.sources.arrow import arrow_rows
from danlu.data.sources.base import JsonValue, Member, Read, kind_of
from danlu.data.sources.encodings import encoding_of, opened, texts
from danlu.data.sources.jsons import json_rows
from danlu.data.sources.tables import csv_rows, sheet_rows
from danlu.errors import DataError
from danlu.i18n import t

__all__ = ["DOCUMENT_FIELD", "JsonValue", "Row", "kind_of", "place", "read_rows", "read_text", "stream_rows"]

# A field of more than a million characters is a file that slipped into a row: at best one row of 250,000 tokens.
MAX_FIELD_CHARACTERS: Final = 1_000_000
# The field that holds a document: its length is not limited, because a document may be learned in pieces.
DOCUMENT_FIELD: Final = "text"
TEXT_SUFFIXES: Final = frozenset({".txt", ".text", ".md", ".markdown"})
_KINDS: Final[dict[str, Callable[[Member], Iterator[Read]]]] = {
    ".json": json_rows, ".jsonl": json_rows, ".ndjson": json_rows,
    ".csv": csv_rows, ".tsv": csv_rows,
    ".xlsx": sheet_rows, ".xlsm": sheet_rows, ".xlsb": sheet_rows, ".xls": sheet_rows, ".ods": sheet_rows,
    ".parquet": arrow_rows, ".arrow": arrow_rows, ".feather": arrow_rows,
}  # fmt: skip
# What Danlu reads itself, no plug-in is asked about.
OWN_SUFFIXES: Final = frozenset({*_KINDS, *TEXT_SUFFIXES, ".zip", ".gz"})


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        index: its number, from 1; in a folder or an archive it counts on from file to file.
        line: line of the file it begins on, from 1.
        values: its fields.
        file: name of the file within a folder or an archive; empty for a file by itself.
    """

    index: int
    line: int
    values: dict[str, JsonValue]
    file: str = ""


def read_rows(path: Path) -> list[Row]:
    """Read all rows; see ``stream_rows``."""
    return list(stream_rows(path))


def stream_rows(path: Path) -> Iterator[Row]:
    """Go through the rows of a file of any kind, or of a folder or an archive of them.

    The kind is told by the end of the name; where that says nothing, by how the file begins.

    Raises:
        DataError: missing, empty, in an encoding that is not read, damaged, not a list of objects, a text that is no
            Unicode, or one beyond all measure.
    """
    count = 0
    for member in _members(path):
        for line, values in _read(member):
            count += 1
            row = Row(count, line, values, member.name)
            for field, value in values.items():
                for inner in _texts(value):
                    _check_text(path, row, field, inner)
            yield row
    if not count:
        raise DataError("data.no_rows", str(path))


def place(path: Path | str, row: Row, field: str | None = None) -> str:
    """Return where something stands, for people: ``file, row 3 (line 17), field output``."""
    name = path.name if isinstance(path, Path) else path
    if row.file:
        name = f"{name}/{row.file}"
    if field is None:
        return t("data.place_row", file=name, row=row.index, line=row.line)
    return t("data.place_field", file=name, row=row.index, line=row.line, field=field)


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


def _members(path: Path) -> Iterator[Member]:
    """Go through the files that a path stands for."""
    if path.is_dir():
        for member in folder_members(path):
            yield from _unpacked(member)
    else:
        yield from _unpacked(Member(path, str(path)))


def _unpacked(member: Member) -> Iterator[Member]:
    suffix = member.suffix
    if suffix == ".gz":
        yield from gzip_member(member)
    elif suffix == ".zip" or (suffix not in OWN_SUFFIXES and _head(member).startswith(b"PK\x03\x04")):
        for inner in zip_members(member):
            if inner.suffix == ".zip":
                raise DataError("files.nested_archive", inner.shown)
            yield from _unpacked(inner)
    else:
        yield member


def _read(member: Member) -> Iterator[Read]:
    suffix = member.suffix
    if suffix in TEXT_SUFFIXES:
        return iter([_whole_file(member)])
    own = _KINDS.get(suffix)
    if own is not None:
        return own(member)
    if suffix and member.path.is_file():
        foreign = rows_by_plugin(member.path)
        if foreign is not None:
            return iter(foreign)
    if member.name and suffix:
        known = ", ".join(sorted(OWN_SUFFIXES))
        raise DataError("files.unknown_kind", member.shown, known=known)
    head = _head(member)
    if head.startswith((b"PAR1", b"ARROW1")):
        return arrow_rows(member)
    return json_rows(member)


def _head(member: Member) -> bytes:
    with opened(member) as file:
        return file.read(8)


def _whole_file(member: Member) -> Read:
    """Read a text file as one document; line ends of Windows become plain ones, as in any text editor."""
    with opened(member) as file:
        if not file.read(1):
            raise DataError("data.empty_text", member.shown)
    text = "".join(texts(member, encoding_of(member)))
    if not text.strip():
        raise DataError("data.empty_text", member.shown)
    if "\0" in text:
        raise DataError("data.binary_text", member.at(text.count("\n", 0, text.index("\0")) + 1))
    return 1, {DOCUMENT_FIELD: text.replace("\r\n", "\n")}


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value if isinstance(value, list) else value.values():
            yield from _texts(inner)


def _check_text(path: Path, row: Row, field: str, text: str) -> None:
    if len(text) > MAX_FIELD_CHARACTERS and field != DOCUMENT_FIELD:
        where = place(path, row, field)
        raise DataError("data.field_too_long", where, characters=len(text), most=MAX_FIELD_CHARACTERS)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can write half of a character (\ud83d alone); no tokenizer and no file can take it.
        escape = f"\\u{ord(text[error.start]):04x}"
        raise DataError("data.half_character", place(path, row, field), escape=escape) from None

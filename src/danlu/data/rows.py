"""Files to rows: JSON and JSON Lines, each row with the line it stands on; a text file is one row with its text.

Not for what a row means (``conversations``). Everything that is wrong with a file is said with file, line and remedy.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.data.readers import rows_by_plugin
from danlu.errors import DataError
from danlu.i18n import t

# A field of more than a million characters is a file that slipped into a row: at best one row of 250,000 tokens.
MAX_FIELD_CHARACTERS: Final = 1_000_000
# The field that holds a document: its length is not limited, because a document may be learned in pieces.
DOCUMENT_FIELD: Final = "text"
# What Danlu reads itself, no plug-in is asked about.
_JSON_SUFFIXES: Final = frozenset({"", ".json", ".jsonl"})
TEXT_SUFFIXES: Final = frozenset({".txt", ".text", ".md", ".markdown"})

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        index: its number, from 1.
        line: line of the file it begins on, from 1.
        values: its fields.
    """

    index: int
    line: int
    values: dict[str, JsonValue]


def read_rows(path: Path) -> list[Row]:
    """Read a JSON array or JSON Lines file, a text file as a single row, or what a plug-in reads.

    A comma after the last row is forgiven, as JavaScript and people do.

    Raises:
        DataError: missing, empty, not UTF-8, not JSON, not a list of objects, a text that is no Unicode, or one
            beyond all measure.
    """
    if path.suffix.lower() in TEXT_SUFFIXES:
        return [_whole_file(path)]
    foreign = path.suffix.lower() not in _JSON_SUFFIXES and path.is_file()
    read = rows_by_plugin(path) if foreign else None
    if read is not None:
        rows = [Row(index, line, values) for index, (line, values) in enumerate(read, start=1)]
    else:
        text = read_text(path)
        rows = _array_rows(path, text) if text.lstrip()[0] == "[" else _lines_rows(path, text)
    for row in rows:
        for field, value in row.values.items():
            for inner in _texts(value):
                _check_text(path, row, field, inner)
    if not rows:
        raise DataError("data.no_rows", str(path))
    return rows


def place(path: Path | str, row: Row, field: str | None = None) -> str:
    """Return where something stands, for people: ``file, row 3 (line 17), field output``."""
    name = path.name if isinstance(path, Path) else path
    if field is None:
        return t("data.place_row", file=name, row=row.index, line=row.line)
    return t("data.place_field", file=name, row=row.index, line=row.line, field=field)


def kind_of(value: JsonValue) -> str:
    """Say what a JSON value is, for people."""
    kinds = {dict: "object", list: "list", str: "text", bool: "bool", int: "number", float: "number"}
    return t(f"data.kind_{kinds.get(type(value), 'null')}")


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: missing, a folder, not readable, not UTF-8, or nothing but white space.
    """
    text = _decode_file(path)
    if not text.strip():
        raise DataError("data.empty_file", str(path))
    return text


def at_line(path: Path, line: int) -> str:
    """Return a place in a file, for people: ``file, line 17``."""
    return t("data.place_line", file=path, line=line)


def lines_of(text: str) -> list[str]:
    """Split JSON Lines at line feeds only: U+2028 and the like may stand inside a JSON text, and do."""
    return text.split("\n")


def _whole_file(path: Path) -> Row:
    """Read a text file as one document; line ends of Windows become plain ones, as in any text editor."""
    text = _decode_file(path)
    if not text.strip():
        raise DataError("data.empty_text", str(path))
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError("data.binary_text", at_line(path, line))
    return Row(1, 1, {DOCUMENT_FIELD: text.replace("\r\n", "\n")})


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


def _decode_file(path: Path) -> str:
    if path.is_dir():
        raise DataError("data.is_folder", str(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("data.missing_file", str(path)) from None
    except OSError as error:
        raise DataError("data.unreadable", str(path), reason=error.strerror or str(error)) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = _likely_encoding(content)
        raise DataError("data.not_utf8", at_line(path, line), likely=likely) from None


def _likely_encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return t("data.encoding_other")
    return "GBK/GB18030"


def _array_rows(path: Path, text: str) -> list[Row]:
    newlines = [at for at, char in enumerate(text) if char == "\n"]
    decoder = json.JSONDecoder()
    rows: list[Row] = []
    at = _skip(text, text.index("[") + 1)
    while not text.startswith("]", at):
        line = bisect.bisect_left(newlines, at) + 1
        value, at = _decode(path, decoder, text, at, line)
        rows.append(_row(path, value, len(rows) + 1, line))
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            here = bisect.bisect_left(newlines, at) + 1
            raise DataError("data.not_json", at_line(path, here), reason=t("data.expected_comma"))
    after = _skip(text, at + 1)
    if after < len(text):
        here = bisect.bisect_left(newlines, after) + 1
        raise DataError("data.not_json", at_line(path, here), reason=t("data.text_after_end"))
    return rows


def _lines_rows(path: Path, text: str) -> list[Row]:
    decoder = json.JSONDecoder()
    rows: list[Row] = []
    for number, line in enumerate(lines_of(text), start=1):
        start = len(line) - len(line.lstrip())
        if start == len(line):
            continue
        try:
            value, end = _decode(path, decoder, line, start, number)
        except DataError:
            if not rows and line[start] == "{" and _is_json(text):
                raise DataError("data.not_a_list", str(path), kind="{…}") from None
            raise
        if line[end:].strip():
            raise DataError("data.not_json", at_line(path, number), reason=t("data.text_after_row"))
        rows.append(_row(path, value, len(rows) + 1, number))
    return rows


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _decode(path: Path, decoder: json.JSONDecoder, text: str, at: int, line: int) -> tuple[JsonValue, int]:
    """Read the value at a place; return it and where it ends. ``line`` is the line of that place."""
    try:
        value, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        here = line + text.count("\n", at, error.pos)
        raise DataError("data.not_json", at_line(path, here), reason=error.msg) from None
    except ValueError as error:  # a number with more digits than Python converts
        raise DataError("data.not_json", at_line(path, line), reason=str(error)) from None
    except RecursionError:
        raise DataError("data.not_json", at_line(path, line), reason=t("data.nested_too_deeply")) from None
    return value, end


def _row(path: Path, value: JsonValue, index: int, line: int) -> Row:
    if not isinstance(value, dict):
        where = t("data.place_row", file=path.name, row=index, line=line)
        raise DataError("data.row_not_object", where, kind=kind_of(value))
    return Row(index, line, value)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at

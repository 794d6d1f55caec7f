"""Files to rows: JSON and JSON Lines, each row with the line it stands on.

Not for what a row means (``formats``). Everything that is wrong with a file is said with file, line and remedy.
"""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.errors import DataError
from danlu.i18n import t

# A field of more than a million characters is a file that slipped into a row: at best one row of 250,000 tokens.
MAX_FIELD_CHARACTERS: Final = 1_000_000

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
    """Read a JSON array or JSON Lines file.

    Raises:
        DataError: missing, empty, not UTF-8, not JSON, not a list of objects, or a field beyond all measure.
    """
    text = _read_text(path)
    if not text.strip():
        raise DataError("data.empty_file", str(path))
    rows = _array_rows(path, text) if text.lstrip()[0] == "[" else _lines_rows(path, text)
    for row in rows:
        for field, value in row.values.items():
            if isinstance(value, str) and len(value) > MAX_FIELD_CHARACTERS:
                raise DataError(
                    "data.field_too_long",
                    place(path, row, field),
                    characters=len(value),
                    most=MAX_FIELD_CHARACTERS,
                )
    if not rows:
        raise DataError("data.no_rows", str(path))
    return rows


def place(path: Path | str, row: Row, field: str | None = None) -> str:
    """Return where something stands, for people: ``file, row 3 (line 17), field output``."""
    name = path.name if isinstance(path, Path) else path
    if field is None:
        return t("data.place_row", file=name, row=row.index, line=row.line)
    return t("data.place_field", file=name, row=row.index, line=row.line, field=field)


def _at_line(path: Path, line: int) -> str:
    return t("data.place_line", file=path, line=line)


def _read_text(path: Path) -> str:
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
        raise DataError("data.not_utf8", _at_line(path, line), likely=likely) from None


def _likely_encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return "?"
    return "GBK/GB18030"


def _array_rows(path: Path, text: str) -> list[Row]:
    newlines = [at for at, char in enumerate(text) if char == "\n"]
    decoder = json.JSONDecoder()
    rows: list[Row] = []
    at = _skip(text, text.index("[") + 1)
    while not text.startswith("]", at):
        line = bisect.bisect_left(newlines, at) + 1
        value, at = _decode(path, decoder, text, at, newlines)
        rows.append(_row(path, value, len(rows) + 1, line))
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            here = bisect.bisect_left(newlines, at) + 1
            raise DataError("data.not_json", _at_line(path, here), reason=t("data.expected_comma"))
    after = _skip(text, at + 1)
    if after < len(text):
        here = bisect.bisect_left(newlines, after) + 1
        raise DataError("data.not_json", _at_line(path, here), reason=t("data.text_after_end"))
    return rows


def _lines_rows(path: Path, text: str) -> list[Row]:
    decoder = json.JSONDecoder()
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = decoder.decode(line)
        except json.JSONDecodeError as error:
            if number == 1 and text.lstrip().startswith("{") and _is_json(text):
                raise DataError("data.not_a_list", str(path), kind="{…}") from None
            raise DataError("data.not_json", _at_line(path, number), reason=error.msg) from None
        rows.append(_row(path, value, len(rows) + 1, number))
    return rows


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _decode(path: Path, decoder: json.JSONDecoder, text: str, at: int, newlines: list[int]) -> tuple[JsonValue, int]:
    try:
        value, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        here = bisect.bisect_left(newlines, error.pos) + 1
        raise DataError("data.not_json", _at_line(path, here), reason=error.msg) from None
    except RecursionError:
        raise DataError("data.not_json", str(path), reason=t("data.nested_too_deeply")) from None
    return value, end


def _row(path: Path, value: JsonValue, index: int, line: int) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            "data.row_not_object", t("data.place_row", file=path.name, row=index, line=line), kind=type(value).__name__
        )
    return Row(index, line, value)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at

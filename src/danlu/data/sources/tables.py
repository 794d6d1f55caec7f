"""Tables: CSV and TSV as spreadsheets and databases write them, and the sheets of Excel and LibreOffice files."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from danlu.data.sources.base import JsonValue, Member, Read
from danlu.data.sources.encodings import encoding_of, texts
from danlu.errors import DataError
from danlu.i18n import t

_DELIMITERS: Final = (",", "\t", ";", "|")
_LONGEST_CELL: Final = 10_000_000


def csv_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of a table in a text file; the first line names the columns.

    The delimiter is the one of comma, tab, semicolon and vertical bar that occurs most often in that line.

    Raises:
        DataError: empty, no header, a row with more cells than there are columns, or quotation marks that do not close.
    """
    encoding = encoding_of(member)
    delimiter = "\t" if member.suffix == ".tsv" else _delimiter(member, encoding)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(_lines(member, encoding), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError("files.bad_table", member.at(line), reason=str(error)) from None
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names = _names(member, cells, line)
            continue
        if len(cells) > len(names):
            raise DataError("files.too_many_cells", member.at(line), cells=len(cells), columns=len(names))
        # What a row leaves out at its end is missing; the family of rows says whether it may be.
        yield line, {name: cell for name, cell in zip(names, cells, strict=False) if name}
    if names is None:
        raise DataError("data.empty_file", member.shown)


def sheet_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of all sheets of a spreadsheet; the first row of each names the columns.

    Sheets that hold nothing are passed over; the others must have the same columns. Whole numbers come without a
    decimal point, dates as ISO 8601, truth values as true and false; all of them as texts, as they would be in a CSV.

    Raises:
        DataError: no spreadsheet, damaged, protected by a password, or sheets with different columns.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        workbook = CalamineWorkbook.from_path(str(member.path))
        sheets = [(name, workbook.get_sheet_by_name(name)) for name in workbook.sheet_names]
    except (CalamineError, OSError) as error:
        raise DataError("files.bad_spreadsheet", member.shown, reason=str(error)) from None
    header: tuple[str, list[str]] | None = None
    for sheet_name, sheet in sheets:
        names: list[str] | None = None
        for line, cells in enumerate(sheet.iter_rows(), start=1 + (sheet.start or (0, 0))[0]):
            texts_of_row = [_cell(cell) for cell in cells]
            if not any(text.strip() for text in texts_of_row):
                continue
            if names is None:
                names = _names(member, texts_of_row, line)
                if header is not None and names != header[1]:
                    raise DataError(
                        "files.sheets_differ", member.shown, first=header[0], other=sheet_name,
                        columns=", ".join(filter(None, names)),
                    )  # fmt: skip
                header = header or (sheet_name, names)
                continue
            yield line, {name: text for name, text in zip(names, texts_of_row, strict=False) if name}
    if header is None:
        raise DataError("data.empty_file", member.shown)


def _cell(value: Any) -> str:
    """Return a cell as the text that people see in it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _names(member: Member, cells: Sequence[str], line: int) -> list[str]:
    """Return the names of columns; a column without one is not read, and must not hold anything that is named twice."""
    names = [cell.strip().lstrip("\ufeff") for cell in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError("files.column_twice", member.at(line), name=twice)
    if len([name for name in names if name]) < 1 or all(len(name) > 60 for name in names if name):
        raise DataError("files.no_header", member.at(line), found=t("files.excerpt", text=(names[0] or "–")[:40]))
    return names


def _delimiter(member: Member, encoding: str) -> str:
    """Return what separates the cells of the first line that is not empty."""
    for line in _lines(member, encoding):
        if line.strip():
            quoted = line.split('"')[0::2]  # outside of quotation marks
            counts = {sign: sum(part.count(sign) for part in quoted) for sign in _DELIMITERS}
            return max(_DELIMITERS, key=lambda sign: counts[sign])
    raise DataError("data.empty_file", member.shown)


def _lines(member: Member, encoding: str) -> Iterator[str]:
    """Go through the lines with their ends; a lone carriage return, as old Macs wrote it, ends one too."""
    rest = ""
    for piece in texts(member, encoding):
        rest += piece
        hold = rest.endswith("\r")  # its line feed may come with the next piece
        lines = io.StringIO(rest[:-1] if hold else rest, newline="").readlines()
        rest = "\r" if hold else ""
        if lines and not lines[-1].endswith(("\n", "\r")):
            rest = lines.pop() + rest
        yield from (line.removeprefix("\ufeff") for line in lines)
    if rest:
        yield rest


def plain(value: Any) -> JsonValue:
    """Return a value of a column as JSON has it: dates as ISO 8601, anything else that JSON lacks as text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

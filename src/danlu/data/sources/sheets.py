"""Spreadsheets of Excel and LibreOffice: the rows of all their sheets.

Not row by row: a spreadsheet is a packed archive whose sheets share their texts, and has at most 1,048,576 rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any, Final

from danlu.data.sources.base import Member, Read
from danlu.data.sources.tables import Columns
from danlu.errors import DataError

# What spreadsheet programs show where a formula fails; calamine gives the name in this form.
_ERRORS: Final = frozenset({"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#GETTING_DATA"})


def sheet_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of all sheets of a spreadsheet; the first row of each that is not empty names the columns.

    Sheets that hold nothing are passed over; the others must have the same columns. All cells come as texts, as they
    would be in a CSV: whole numbers without a decimal point, dates as ISO 8601 (without the time where it is midnight),
    durations as hours:minutes:seconds, truth values as true and false.

    Raises:
        DataError: no spreadsheet, damaged, protected by a password, sheets with different columns, or a formula that
            failed.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        workbook = CalamineWorkbook.from_path(str(member.path))
        sheets = [(name, workbook.get_sheet_by_name(name)) for name in workbook.sheet_names]
    except (CalamineError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError("files.bad_spreadsheet", member.shown, reason=reason) from None
    first: tuple[str, Columns] | None = None
    for done, (sheet_name, sheet) in enumerate(sheets, start=1):
        columns: Columns | None = None
        named = Member(member.path, f"{member.shown} [{sheet_name}]" if len(sheets) > 1 else member.shown)
        for line, cells in enumerate(sheet.iter_rows(), start=1 + (sheet.start or (0, 0))[0]):
            shown = [_cell(named, cell, line, number) for number, cell in enumerate(cells, start=1)]
            if not any(text.strip() for text in shown):
                continue
            if columns is not None:
                yield line, dict(columns.values(named, shown, line))
                continue
            columns = Columns.named(named, _trimmed(shown), line)
            columns = Columns([*columns.names, *[""] * (len(shown) - len(columns.names))])
            if first is not None and _given(columns) != _given(first[1]):
                raise DataError(
                    "files.sheets_differ", member.shown, first=first[0], other=sheet_name,
                    columns=", ".join(_given(columns)),
                )  # fmt: skip
            first = first or (sheet_name, columns)
        member.position.done = member.share * done // len(sheets)
    if first is None:
        raise DataError("data.empty_file", member.shown)


def _given(columns: Columns) -> list[str]:
    return [name for name in columns.names if name]


def _trimmed(cells: Sequence[str]) -> list[str]:
    """Leave out the empty cells at the end of a header: a sheet is as wide as its widest row."""
    last = max(number for number, cell in enumerate(cells, start=1) if cell.strip())
    return list(cells[:last])


def _cell(member: Member, value: Any, line: int, column: int) -> str:
    """Return a cell as the text that people see in it.

    Raises:
        DataError: the cell holds the failure of a formula.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str) and value in _ERRORS:
        raise DataError("files.failed_formula", member.at(line), found=value, number=column)
    return str(value)

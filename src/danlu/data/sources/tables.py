"""Tables in text files: CSV and TSV as spreadsheets and databases write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from danlu.data.sources.base import Member, Read
from danlu.data.sources.encodings import texts
from danlu.errors import DataError
from danlu.i18n import t

_DELIMITERS: Final = (",", "\t", ";", "|")
_LONGEST_CELL: Final = 10_000_000
_NAME_CHARACTERS: Final = 60
_LOOKED_AT: Final = 5


def csv_rows(member: Member, encoding: str) -> Iterator[Read]:
    """Go through the rows of a table in a text file; the first line names the columns.

    The delimiter is the one of comma, tab, semicolon and vertical bar that occurs most often in that line, or the one
    that a first line ``sep=;`` names, as Excel writes it.

    Raises:
        DataError: no header, a row of another number of cells, a value in a column without a name, quotation marks
            that do not close, or a NUL character.
    """
    delimiter, named = _delimiter(member, encoding)
    csv.field_size_limit(_LONGEST_CELL)
    lines = _lines(member, encoding)
    reader = csv.reader(islice(lines, 1, None) if named else lines, delimiter=delimiter, strict=True)
    columns: Columns | None = None
    while True:
        line = reader.line_num + 1 + named
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError("files.bad_table", member.at(line), reason=str(error)) from None
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if any("\0" in cell for cell in cells):
            raise DataError("data.binary_text", member.at(line))
        if columns is None:
            columns = Columns.named(member, cells, line)
        else:
            yield line, dict(columns.values(member, cells, line))
    if columns is None:
        raise DataError("data.empty_file", member.shown)


class Columns:
    """The columns of a table, as its header names them.

    Attributes:
        names: a name for each; empty for one without a name, which must then be empty in every row.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @classmethod
    def named(cls, member: Member, cells: Sequence[str], line: int) -> Columns:
        """Take the names from a header.

        Raises:
            DataError: two names are the same, or the cells are no names.
        """
        names = [cell.strip() for cell in cells]
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            places = ", ".join(str(number) for number, name in enumerate(names, start=1) if name == twice)
            raise DataError("files.column_twice", member.at(line), name=twice, places=places)
        if all(len(name) > _NAME_CHARACTERS for name in names if name):
            found = t("files.excerpt", text=next(filter(None, names), "–")[:40])
            raise DataError("files.no_header", member.at(line), found=found)
        return cls(names)

    def values(self, member: Member, cells: Sequence[str], line: int) -> Iterator[tuple[str, str]]:
        """Put the names to the cells of a row.

        Raises:
            DataError: there are more or fewer cells than columns, or a cell without a name holds something.
        """
        if len(cells) > len(self.names):
            raise DataError("files.too_many_cells", member.at(line), cells=len(cells), columns=len(self.names))
        if len(cells) < len(self.names):
            raise DataError("files.too_few_cells", member.at(line), cells=len(cells), columns=len(self.names))
        for number, (name, cell) in enumerate(zip(self.names, cells, strict=True), start=1):
            if name:
                yield name, cell
            elif cell.strip():
                found = t("files.excerpt", text=cell.strip()[:40])
                raise DataError("files.column_unnamed", member.at(line), number=number, found=found)


def seems_table(sample: str, *, complete: bool) -> bool:
    """Say whether a text is a table: its first lines have the same number of cells, two or more.

    Args:
        sample: how the text begins.
        complete: it is all of the text, so that its last line is whole.
    """
    lines = [line for line in sample.splitlines() if line.strip()]
    if not complete:
        lines = lines[:-1]
    if len(lines) < 2:
        return False
    delimiter = _most_frequent(lines[0])
    try:
        rows = list(islice(csv.reader(lines, delimiter=delimiter), _LOOKED_AT))
    except csv.Error:
        return False
    names = [cell.strip() for cell in rows[0]]
    fit = all(0 < len(name) <= _NAME_CHARACTERS for name in names) and len(set(names)) == len(names)
    return fit and len(names) > 1 and all(len(row) == len(names) for row in rows)


def _delimiter(member: Member, encoding: str) -> tuple[str, bool]:
    """Return what separates the cells, and whether the first line does nothing but say so."""
    if member.suffix in {".tsv", ".tab"}:
        return "\t", False
    for number, line in enumerate(_lines(member, encoding)):
        stripped = line.strip("\r\n ")
        if number == 0 and stripped.lower().startswith("sep=") and len(stripped) == 5:
            return stripped[4], True
        if number == 0 and line.rstrip("\r\n").lower() == "sep=\t":
            return "\t", True
        if stripped:
            return _most_frequent(line), False
    raise DataError("data.empty_file", member.shown)


def _most_frequent(line: str) -> str:
    outside = line.split('"')[0::2]  # of quotation marks
    counts = {sign: sum(part.count(sign) for part in outside) for sign in _DELIMITERS}
    return max(_DELIMITERS, key=lambda sign: counts[sign])


def _lines(member: Member, encoding: str) -> Iterator[str]:
    """Go through the lines with their ends; a lone carriage return, as old Macs wrote it, ends one too.

    Raises:
        DataError: a line is longer than any cell may be.
    """
    rest: list[str] = []
    held = count = 0
    carriage = ""
    for piece in texts(member, encoding):
        text = carriage + piece
        carriage = "\r" if text.endswith("\r") else ""  # its line feed may come with the next piece
        lines = io.StringIO(text.removesuffix("\r"), newline="").readlines() if text else []
        for line in lines:
            rest.append(line)
            held += len(line)
            if line.endswith(("\n", "\r")):
                count += 1
                yield "".join(rest)
                rest, held = [], 0
            elif held > _LONGEST_CELL:
                raise DataError("files.row_too_long", member.at(count + 1), most=_LONGEST_CELL)
    if rest or carriage:
        yield "".join(rest) + carriage

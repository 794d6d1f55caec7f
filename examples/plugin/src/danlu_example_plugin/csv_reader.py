"""Tables with the columns ``question`` and ``answer`` (or those of Alpaca), one example a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from danlu.errors import DataError

_NAMES = {"question": "instruction", "answer": "output"}


class CsvReader:
    """Reads ``.csv`` and ``.tsv`` files as spreadsheets write them."""

    suffixes = frozenset({".csv", ".tsv"})

    def matches(self, path: Path) -> bool:
        """Every file with one of these suffixes is meant."""
        return True

    def rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each row with its line, its columns under the names that Danlu knows."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
                for row in table:
                    yield table.line_num, {"input": "", **{_NAMES.get(key, key): value for key, value in row.items()}}
        except UnicodeDecodeError as error:
            # An error of Danlu's own is shown as it is, with its remedy.
            raise DataError("data.not_utf8", str(path), likely="GBK/GB18030") from error

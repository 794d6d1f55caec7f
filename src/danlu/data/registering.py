"""Goes through the rows of a source once: each is tried, hashed, and given on as the line that is stored.

A row that cannot be used refuses the whole file, or is left out, counted and written to a list with its reason. Not
for where versions lie (``datasets``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from danlu.data.conversations import Conversation
from danlu.data.formats import AnyFormat, require_family
from danlu.data.row_source import Source
from danlu.data.rows import Progress, Row
from danlu.data.sources.facts import FileFacts
from danlu.errors import DataError
from danlu.files import disk_errors
from danlu.i18n import Language, t

LEFT_OUT: Final = "left-out.jsonl"
"""The list of a version's file's rows that could not be used."""


class UnusableRowError(DataError):
    """A row of a file cannot be used: says beside its remedy how the other rows can be used without it."""

    def fix(self, lang: Language | None = None) -> str:
        """Return what to do about it."""
        return f"{super().fix(lang)} {t('versions.or_leave_out', lang)}"


class TriedRows:
    """The rows of a source.

    Args:
        source: the source.
        family: what its rows are read as.
        progress: is told bytes done and in all.
        list_at: where rows that cannot be used are listed; None refuses them.

    Attributes:
        rows: rows that can be used.
        left_out: answers of a model that are not accepted, which are among them.
        pseudo: answers of a model.
        unusable: rows that were left out, by the reason (the key of the error).
        facts: what was found out about the files.
    """

    def __init__(
        self, source: Source, family: AnyFormat, progress: Progress | None = None, list_at: Path | None = None
    ) -> None:
        self.rows = 0
        self.left_out = 0
        self.pseudo = 0
        self.unusable = Counter[str]()
        self.facts = FileFacts()
        self._source = source
        self._family = family
        self._progress = progress
        self._list_at = list_at
        self._list: IO[str] | None = None
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the lines that were given on."""
        return self._digest.hexdigest()

    def items(self) -> Iterator[tuple[Row, Any]]:
        """Go through the rows that can be used and what they mean.

        Raises:
            DataError: a row cannot be used and is not to be left out, none can, or placeholders are left.
        """
        name = self._source.path.name
        left = self._source.placeholders()
        stream, rows = self._source.stream(self._progress)
        try:
            for row in rows:
                try:
                    require_family(name, row, self._family, named=self._source.reading.format != "auto")
                    item = self._family.convert(name, row)
                except DataError as error:
                    self._leave_out(row, error)
                    continue
                left.look(row, item)
                self.rows += 1
                if isinstance(item, Conversation):
                    self.pseudo += item.pseudo
                    self.left_out += not item.accepted
                self._digest.update(line_of(row).encode("utf-8", "surrogatepass") + b"\n")
                yield row, item
        finally:
            if self._list is not None:
                self._list.close()
        self.facts = stream.facts
        if not self.rows:
            raise DataError("versions.none_usable", name, rows=self.unusable.total())
        left.require_none(name)

    def lines(self) -> Iterator[str]:
        """Go through the rows as they are stored."""
        return (line_of(row) for row, _ in self.items())

    def _leave_out(self, row: Row, error: DataError) -> None:
        """Count and list a row that cannot be used, or refuse it."""
        if self._list_at is None:
            raise UnusableRowError(error.key, error.where, **error.params) from None
        self.unusable[error.key] += 1
        said = {
            "row": row.index, "line": row.line, "file": row.file, "code": error.key, "where": error.where,
            "reason": error.what(), "fix": error.fix(), "values": row.values,
        }  # fmt: skip
        with disk_errors(self._list_at):
            if self._list is None:
                self._list = self._list_at.open("w", encoding="utf-8", newline="\n")
            self._list.write(json.dumps(said, ensure_ascii=False) + "\n")


def line_of(row: Row) -> str:
    """Return a row as the line that is stored and hashed."""
    return json.dumps(row.values, ensure_ascii=False)

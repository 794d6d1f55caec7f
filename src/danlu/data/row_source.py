"""Rows outside of the library: what a name on a command line or in a recipe points to, and how it is read.

Not for registered data sets (``datasets``) nor for kinds of files (``sources``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from danlu.data.formats import AnyFormat, format_named, recognise
from danlu.data.placeholders import Placeholders
from danlu.data.reading import MEANINGS, NEEDED, Reading, Tags
from danlu.data.rows import Progress, Row, RowStream, place, stream_rows
from danlu.data.sources.hub import hub_name
from danlu.errors import DataError, RecipeError
from danlu.llamafactory import dataset_info

_LOOKED_AT: Final = 50
_NAMED: Final = 8


@dataclass(frozen=True)
class Source:
    """Rows outside of the library.

    Attributes:
        path: the file.
        reading: how it is read.
        name: what it is called.
        listed: the entry of a list that named it, as ``dataset_info.json#name``.
    """

    path: Path
    reading: Reading
    name: str
    listed: str | None = None

    @classmethod
    def of(cls, named: str, reading: Reading | None = None) -> Source | None:
        """Return what a name on a command line or in a recipe points to; None where it can be no file.

        Args:
            named: a file, ``path/dataset_info.json#name``, or a data set of a hub (``hf:OWNER/NAME``).
            reading: how it is read, beside what the list says.

        Raises:
            RecipeError: the list has no such data set, or it is not one of texts.
        """
        reading = reading or Reading()
        path, mark, name = named.rpartition("#")
        if mark and path.endswith(".json"):
            entry = dataset_info.entry_of(Path(path), dataset_info.read_list(Path(path)), name)
            tags = Tags.model_validate(entry.tags) if "messages" in entry.columns else None
            listed = reading.model_copy(
                update={
                    "columns": entry.columns | reading.columns,
                    "tags": reading.tags or tags,
                    "samples": reading.samples or entry.samples,
                }
            )
            return cls(entry.path or Path(str(entry.hub)), listed, name, f"{Path(path).name}#{name}")
        found = Path(named)
        hub = hub_name(named)
        if hub is not None:
            return cls(found, reading, hub.name.rpartition("/")[2])
        if found.name == dataset_info.NAME and found.is_file():
            names = ", ".join(list(dataset_info.read_list(found))[:_NAMED]) or "–"
            raise RecipeError("llamafactory.dataset_unnamed", named, path=named, known=names)
        return cls(found, reading, found.stem) if found.exists() or found.suffix else None

    @classmethod
    def named(cls, named: str, reading: Reading | None = None) -> Source:
        """Return the rows of a file, or of ``path/dataset_info.json#name``.

        Raises:
            RecipeError: the list has no such data set, or it is not one of texts.
        """
        return cls.of(named, reading) or cls(Path(named), reading or Reading(), Path(named).stem)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows as they are to be read."""
        return self.stream()[1]

    def stream(self, progress: Progress | None = None) -> tuple[RowStream, Iterator[Row]]:
        """Go through the rows as they are to be read, and be told about the files that they come from.

        Args:
            progress: is told bytes done and in all; see ``stream_rows``.

        Returns:
            What is known of the files so far, and the rows.
        """
        stream = stream_rows(self.path, progress)
        return stream, self.reading.apply(stream)

    def family(self) -> AnyFormat:
        """Return the family that the rows are in.

        Raises:
            DataError: the file cannot be read, or no family fits.
        """
        self._require_columns()
        return recognise(self.path, self) if self.reading.format == "auto" else format_named(self.reading.format)

    def placeholders(self) -> Placeholders:
        """Return what looks for placeholders in these rows."""
        return Placeholders(self.reading.fill, none=self.reading.fill_none)

    def _require_columns(self) -> None:
        """Check that columns are there at all that are said to hold what is needed."""
        needed = {meaning: name for meaning, name in self.reading.columns.items() if MEANINGS[meaning] in NEEDED}
        if not needed:
            return
        first = list(islice(stream_rows(self.path), _LOOKED_AT))
        there = list(dict.fromkeys(name for row in first for name in row.values))
        for meaning, name in needed.items():
            if name not in there:
                found = ", ".join(there[:8]) or "–"
                where = place(self.path, first[0])
                raise DataError("formats.column_absent", where, column=name, meaning=meaning, found=found)

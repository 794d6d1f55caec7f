"""Asks on a terminal for what a file leaves open. Where nobody can answer, the error that follows says what to do."""

from __future__ import annotations

import sys
from contextlib import suppress

import typer

from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.errors import DataError
from danlu.i18n import t


def ask_fill(source: Source) -> Reading:
    """Return the reading of rows with what their placeholders stand for, as somebody at the terminal says."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or source.reading.fill_none:
        return source.reading
    family, left = source.family(), source.placeholders()
    for row in source:
        # What cannot be read is said with its row when the rows are registered.
        with suppress(DataError):
            left.look(row, family.convert(source.path, row))
    said = {
        found.name: typer.prompt(t("formats.ask_fill", name=found.shown, rows=found.rows), err=True)
        for found in left.open
    }
    return source.reading.model_copy(update={"fill": {**source.reading.fill, **said}})

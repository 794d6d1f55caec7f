"""Asks on a terminal for what a file leaves open. Where nobody can answer, the error that follows says what to do."""

from __future__ import annotations

import sys

import typer

from danlu.data.datasets import Source
from danlu.data.reading import Placeholders, Reading
from danlu.i18n import t


def ask_fill(source: Source) -> Reading:
    """Return the reading of rows with what their placeholders stand for, as somebody at the terminal says."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return source.reading
    left = Placeholders(kept=source.reading.fill)
    for row in source:
        left.look(row)
    said = {
        name: typer.prompt(t("formats.ask_fill", name=name, rows=count), err=True) for name, count in left.rows.items()
    }
    return source.reading.model_copy(update={"fill": {**source.reading.fill, **said}})

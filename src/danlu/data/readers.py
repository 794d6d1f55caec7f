"""Readers of other kinds of files, which plug-ins bring: a file to rows that Danlu knows how to read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from danlu.errors import DanluError
from danlu.plugins import Plugin, installed


class Reader(Protocol):
    """Reads one kind of file (entry point group ``danlu.readers``); made without arguments.

    Attributes:
        suffixes: ends of file names in lower case, such as ``.faq``; those that Danlu reads itself are never asked.
    """

    suffixes: Collection[str]

    def matches(self, path: Path) -> bool:
        """Say whether a file with one of these suffixes is meant for this reader."""

    def rows(self, path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
        """Yield each row with the line it begins on (from 1): fields as a JSON file of examples or texts has them.

        Rows are taken one by one, so a generator need not hold the file.

        A ``DanluError`` that it raises is shown as it is; any other error is shown with the package's name.
        """


def rows_by_plugin(path: Path) -> Iterator[tuple[int, dict[str, Any]]] | None:
    """Return the rows of a file that a plug-in reads, as it gives them, or None when none does.

    Raises:
        PluginError: a reader for this suffix is broken, now or on a later row; the message names its package.
        DataError: what the reader has to say about the file.
    """
    for plugin in installed("danlu.readers").values():
        reader = made_reader(plugin)
        if path.suffix.lower() in reader.suffixes and reader.matches(path):
            return _rows(plugin, reader, path)
    return None


def plugin_suffixes() -> frozenset[str]:
    """Return the ends of file names that plug-ins read.

    Raises:
        PluginError: a reader is broken; the message names its package.
    """
    readers = [made_reader(plugin) for plugin in installed("danlu.readers").values()]
    return frozenset(suffix for reader in readers for suffix in reader.suffixes)


def made_reader(plugin: Plugin) -> Reader:
    """Import a reader and check that it is one.

    Raises:
        PluginError: it is not.
    """
    made = plugin.make()
    plugin.require(made, {"matches": 1, "rows": 1})
    suffixes = getattr(made, "suffixes", None)
    if isinstance(suffixes, str) or not isinstance(suffixes, Collection):
        raise plugin.broken(f"{plugin.entry.value}.suffixes is not a collection of suffixes")
    return cast("Reader", made)


def _rows(plugin: Plugin, reader: Reader, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Go through the rows of a reader; what fails in it is told apart from what fails where the rows go."""
    try:
        rows = iter(reader.rows(path))
    except DanluError:
        raise
    except Exception as error:  # the code of others may fail in any way on a file
        raise plugin.broken(f"{path.name}: {type(error).__name__}: {error}") from error
    while True:
        try:
            found = next(rows, None)
            row = None if found is None else (int(found[0]), dict(found[1]))
        except DanluError:
            raise
        except Exception as error:  # the code of others may fail in any way on a file
            raise plugin.broken(f"{path.name}: {type(error).__name__}: {error}") from error
        if row is None:
            return
        yield row

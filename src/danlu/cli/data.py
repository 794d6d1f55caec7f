"""``danlu data``: add, check, show, list, remove."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.data_report import counted_rows, print_report
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
from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary, Source
from danlu.data.documents import Document
from danlu.data.questions import Question
from danlu.data.reading import reading_of
from danlu.data.texts import cut
from danlu.errors import UsageError
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat, Rendered
from danlu.models.document_format import DocumentFormat
from danlu.models.library import ModelLibrary
from danlu.planning.plan import decide_thinking

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
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a file as a version of a data set."""
    library = DatasetLibrary(home_of(home).datasets)
    reading = reading_of(family, columns or (), fill or (), tags or (), fill_none=fill_none, merge_turns=merge_turns)
    source = Source.named(file, reading)
    if not as_json:
        source = replace(source, reading=ask_fill(source))
    manifest = library.add_source(source, name)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        key = {"texts": "cli.texts_added", "questions": "cli.questions_added"}.get(manifest.kind, "cli.data_added")
        console.print(escape(t(key, name=manifest.name, rows=manifest.rows, version=manifest.version)))


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


@app.command("show", help=t("cli.data_show"))
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help=t("cli.arg_data"))],
    as_model: Annotated[str | None, typer.Option("--as-model", metavar="M", help=t("cli.opt_as_model"))] = None,
    row: Annotated[int, typer.Option("--row", min=1, help=t("cli.opt_row"))] = 1,
    home: HomeOption = None,
) -> None:
    """Show a row as it is, or as a model sees it: learned tokens stand out."""
    folder = home_of(home)
    dataset = DatasetLibrary(folder.datasets).open(name)
    rows = sorted((*dataset.conversations, *dataset.left_out), key=lambda item: item.row)
    last = len(rows or dataset.documents or dataset.preferences or dataset.questions)
    key = {"texts": "cli.texts_head", "questions": "cli.questions_head"}.get(dataset.kind, "cli.data_head")
    results.print(escape(t(key, name=dataset.name, rows=last)))
    if row > last:
        raise UsageError("data.no_such_row", dataset.name, row=row, last=last)
    plain = ChatFormat.load(ModelLibrary(folder).ensure(as_model).path) if as_model else None
    if dataset.kind == "texts":
        _show_document(dataset.documents[row - 1], plain)
        return
    if dataset.preferences:
        everything = [answer for item in dataset.preferences for answer in item.answers]
        item = dataset.preferences[row - 1]
        for key, answer in (("cli.answer_good", item.chosen), ("cli.answer_bad", item.rejected)):
            if answer is not None:
                results.print(f"[bold]▸ {escape(t(key))}[/bold]")
                _show_conversation(answer, everything, plain)
        return
    if dataset.questions:
        _show_question(dataset.questions[row - 1], plain)
        return
    chosen = rows[row - 1]
    if chosen.pseudo:
        key = "cli.pseudo_row" if chosen.accepted else "cli.pseudo_row_left_out"
        results.print(f"[yellow]{escape(t(key, weight=chosen.weight))}[/yellow]", soft_wrap=True)
    _show_conversation(chosen, rows, plain)


def _show_question(question: Question, plain: ChatFormat | None) -> None:
    """Show what is asked; to a model, what it is given before it answers. Nothing of it is learned."""
    if plain is None:
        for message in question.messages:
            results.print(f"[bold]{message.role}[/bold]  {escape(message.content)}")
        return
    ids = tuple(plain.prompt_ids(question.messages))
    _show_sequence(Rendered(ids, (False,) * len(ids)), plain)


def _show_conversation(
    conversation: Conversation, everything: Sequence[Conversation], plain: ChatFormat | None
) -> None:
    if plain is None:
        for message in conversation.messages:
            if message.reasoning:
                results.print(f"[bold]{message.role}[/bold]  [dim]{escape(message.reasoning)}[/dim]")
            if message.content or not message.tool_calls:
                results.print(f"[bold]{message.role}[/bold]  {escape(message.content)}")
            for call in message.tool_calls:
                results.print(f"[bold]{message.role}[/bold]  → {escape(call.name)}({escape(call.arguments)})")
        return
    chat_format, _ = decide_thinking(plain, sum(item.reasoned for item in everything))
    for sequence in chat_format.training_sequences(conversation.messages, conversation.learn, conversation.tools):
        _show_sequence(sequence, chat_format)


def _show_document(document: Document, chat_format: ChatFormat | None) -> None:
    """Show the beginning of a document, which may be a book, and say how long it is."""
    if chat_format is None:
        results.print(escape(document.text[:_SHOWN_CHARACTERS]), soft_wrap=True)
        if len(document.text) > _SHOWN_CHARACTERS:
            results.print(t("cli.text_goes_on", shown=_SHOWN_CHARACTERS, characters=len(document.text)))
        return
    (whole,) = cut([document], DocumentFormat.of(chat_format.tokenizer), sys.maxsize)
    _show_sequence(Rendered(whole.input_ids[:_SHOWN_TOKENS], whole.learn[:_SHOWN_TOKENS]), chat_format)
    if len(whole.input_ids) > _SHOWN_TOKENS:
        results.print(t("cli.tokens_go_on", shown=_SHOWN_TOKENS, tokens=len(whole.input_ids)))


def _show_sequence(sequence: Rendered, chat_format: ChatFormat) -> None:
    results.print(_marked(sequence, chat_format, with_signs=not results.is_terminal))
    results.print(t("cli.as_model_legend", tokens=len(sequence.ids), learned=sum(sequence.learn)))


def _marked(sequence: Rendered, chat_format: ChatFormat, *, with_signs: bool) -> Text:
    """Return the text of a sequence with its learned parts marked, by colour and where that is lost by signs too.

    Tokens of one part are decoded together: a character may be several tokens.
    """
    text = Text()
    for learned, pairs in groupby(zip(sequence.ids, sequence.learn, strict=True), key=itemgetter(1)):
        part = str(chat_format.tokenizer.decode([token for token, _ in pairs]))
        signed = f"⟦{part}⟧" if learned and with_signs else part
        text.append(signed, style="black on green" if learned else "dim")
    return text


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


@app.command("remove", help=t("cli.data_remove"))
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help=t("cli.arg_data"))], home: HomeOption = None
) -> None:
    """Delete a data set with all its versions."""
    DatasetLibrary(home_of(home).datasets).remove(name)
    console.print(escape(t("cli.removed", name=name)))

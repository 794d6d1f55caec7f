"""``danlu data show``: a row as it is, or token by token as a model learns it.

What is shown is what the trainer encodes: ``data.encode`` and ``ChatFormat`` make both. Not for checking (``data``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from danlu.cli.common import HomeOption, JsonOption, home_of, print_json, results
from danlu.data.conversations import Conversation
from danlu.data.datasets import Dataset, DatasetLibrary
from danlu.data.documents import Document
from danlu.data.encode import LearnPolicy, encode, learned_turns
from danlu.data.texts import cut
from danlu.errors import UsageError
from danlu.i18n import t
from danlu.models.base_template import fit_template
from danlu.models.chat_format import ChatFormat, Rendered
from danlu.models.document_format import DocumentFormat
from danlu.models.library import ModelLibrary
from danlu.models.messages import Message
from danlu.models.template_notes import TemplateNote, notes_on
from danlu.models.token_text import readable
from danlu.planning.plan import decide_thinking
from danlu.recipe import Thinks
from danlu.settings import Home

_SHOWN_CHARACTERS = 2000
_SHOWN_TOKENS = 1024


@dataclass(frozen=True)
class Seen:
    """A row, or one of its two answers, as a model sees it.

    Attributes:
        sequences: what is learned, as ids.
        chat_format: how it was written.
        notes: what its reader may not expect.
        title: catalogue key of what it is, where a row is more than one; empty otherwise.
        spoken: it is a turn of a conversation, and no document.
    """

    sequences: Sequence[Rendered]
    chat_format: ChatFormat
    notes: Sequence[TemplateNote] = ()
    title: str = ""
    spoken: bool = True


def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help=t("cli.arg_data"))],
    as_model: Annotated[str | None, typer.Option("--as-model", metavar="M", help=t("cli.opt_as_model"))] = None,
    row: Annotated[int, typer.Option("--row", min=1, help=t("cli.opt_row"))] = 1,
    tokens: Annotated[bool, typer.Option("--tokens", help=t("templates.opt_tokens"))] = False,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help=t("templates.opt_system"))] = None,
    learn: Annotated[str, typer.Option("--learn", metavar="all|last", help=t("templates.opt_learn"))] = "all",
    thinking: Annotated[
        str, typer.Option("--thinking", metavar="auto|on|off", help=t("templates.opt_thinking"))
    ] = "auto",
    template: Annotated[
        str, typer.Option("--chat-template", metavar="auto|chatml|plain|FILE", help=t("templates.opt_template"))
    ] = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a row as it is, or as a model sees it: learned tokens stand out."""
    policy, thinks = _one_of("--learn", learn, ("all", "last")), _one_of("--thinking", thinking, ("auto", "on", "off"))
    if tokens and as_model is None:
        raise UsageError("templates.tokens_of_whom")
    folder = home_of(home)
    dataset = DatasetLibrary(folder.datasets).open(name)
    rows = sorted((*dataset.conversations, *dataset.left_out), key=lambda item: item.row)
    last = len(rows or dataset.documents or dataset.preferences or dataset.questions)
    if row > last:
        raise UsageError("data.no_such_row", dataset.name, row=row, last=last)
    seen: list[Seen] = []
    if as_model is not None:
        plain = _format_of(folder, as_model, system or "", template)
        seen = _seen(dataset, rows, row, plain, policy, thinks)  # type: ignore[arg-type]
    if as_json and seen:
        print_json(_as_json(row, seen))
        return
    if not as_json:
        key = {"texts": "cli.texts_head", "questions": "cli.questions_head"}.get(dataset.kind, "cli.data_head")
        results.print(escape(t(key, name=dataset.name, rows=last)))
    if not seen:
        _show_plain(dataset, rows, row, as_json=as_json)
        return
    if rows and rows[row - 1].pseudo:
        key = "cli.pseudo_row" if rows[row - 1].accepted else "cli.pseudo_row_left_out"
        results.print(f"[yellow]{escape(t(key, weight=rows[row - 1].weight))}[/yellow]", soft_wrap=True)
    for item in seen:
        _print_seen(item, tokens=tokens)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError("templates.not_one_of", option, value=value, known=", ".join(known))
    return value


def _format_of(home: Home, model: str, system: str, template: str) -> ChatFormat:
    """Return the chat format of a model, with the template that a run would give it."""
    base = ModelLibrary(home).ensure(model)
    with TemporaryDirectory() as scratch:
        wish = template if template in {"auto", "chatml", "plain"} else str(Path(template).expanduser())
        written = None if wish == "auto" else fit_template(base.path, Path(scratch) / "tokenizer", wish)
        return ChatFormat.load(base.path if written is None else Path(scratch) / "tokenizer", system)


def _seen(
    dataset: Dataset, rows: Sequence[Conversation], row: int, plain: ChatFormat, learn: LearnPolicy, thinks: Thinks
) -> list[Seen]:
    if dataset.kind == "texts":
        ids = _document_ids(dataset.documents[row - 1], plain)
        return [Seen([ids], plain, spoken=False)]
    if dataset.questions:
        messages = dataset.questions[row - 1].messages
        prompt = tuple(plain.prompt_ids(messages))
        notes = notes_on(plain, messages, (False,) * len(messages))
        return [Seen([Rendered(prompt, (False,) * len(prompt))], plain, notes)]
    if dataset.preferences:
        everything = [answer for item in dataset.preferences for answer in item.answers]
        item = dataset.preferences[row - 1]
        sides = (("cli.answer_good", item.chosen), ("cli.answer_bad", item.rejected))
        pairs = [(title, answer) for title, answer in sides if answer is not None]
    else:
        everything, pairs = list(rows), [("", rows[row - 1])]
    reasoned = sum(answer.reasoned for answer in everything)
    chat_format, policies = decide_thinking(plain, reasoned, len(everything), thinks)
    about = [TemplateNote(policy.code, dict(policy.params)) for policy in policies]  # type: ignore[arg-type]
    return [
        Seen(
            [Rendered(made.input_ids, made.learn) for made in encode([answer], chat_format, learn)],
            chat_format,
            [*about, *notes_on(chat_format, answer.messages, learned_turns(answer, learn))],
            title,
        )
        for title, answer in pairs
    ]


def _document_ids(document: Document, chat_format: ChatFormat) -> Rendered:
    (whole,) = cut([document], DocumentFormat.of(chat_format.tokenizer), sys.maxsize)
    return Rendered(whole.input_ids, whole.learn)


def _show_plain(dataset: Dataset, rows: Sequence[Conversation], row: int, *, as_json: bool) -> None:
    """Show a row as it was read, for no model in particular."""
    if dataset.kind == "texts":
        text = dataset.documents[row - 1].text
        if as_json:
            print_json({"row": row, "text": text})
            return
        results.print(escape(text[:_SHOWN_CHARACTERS]), soft_wrap=True)
        if len(text) > _SHOWN_CHARACTERS:
            results.print(t("cli.text_goes_on", shown=_SHOWN_CHARACTERS, characters=len(text)))
        return
    if dataset.preferences:
        item = dataset.preferences[row - 1]
        sides = (("cli.answer_good", item.chosen), ("cli.answer_bad", item.rejected))
        parts = [(title, answer.messages, "") for title, answer in sides if answer is not None]
    elif dataset.questions:
        parts = [("", dataset.questions[row - 1].messages, "")]
    else:
        chosen = rows[row - 1]
        parts = [("", chosen.messages, chosen.tools)]
        if chosen.pseudo and not as_json:
            key = "cli.pseudo_row" if chosen.accepted else "cli.pseudo_row_left_out"
            results.print(f"[yellow]{escape(t(key, weight=chosen.weight))}[/yellow]", soft_wrap=True)
    if as_json:
        answers = [
            {"messages": [asdict(message) for message in messages], "tools": tools} for _, messages, tools in parts
        ]
        print_json({"row": row, **(answers[0] if len(answers) == 1 else {"answers": answers})})
        return
    for title, messages, tools in parts:
        if title:
            results.print(f"[bold]▸ {escape(t(title))}[/bold]")
        if tools:
            results.print(f"[bold]tools[/bold]  [dim]{escape(tools)}[/dim]", soft_wrap=True)
        for message in messages:
            _print_message(message)


def _print_message(message: Message) -> None:
    head = f"[bold]{message.role}[/bold]  "
    if message.reasoning:
        results.print(f"{head}[dim]{escape(message.reasoning)}[/dim]")
    if message.content or not message.tool_calls:
        results.print(head + escape(message.content))
    for call in message.tool_calls:
        results.print(f"{head}→ {escape(call.name)}({escape(call.arguments)})")


def _print_seen(seen: Seen, *, tokens: bool) -> None:
    """Show a row as a model sees it; of a document, which may be a book, the beginning."""
    if seen.title:
        results.print(f"[bold]▸ {escape(t(seen.title))}[/bold]")
    for note in seen.notes:
        results.print(f"[yellow]• {escape(note.text())}[/yellow]", soft_wrap=True)
    if not seen.sequences:
        results.print(t("templates.nothing_learned"))
    if len(seen.sequences) > 1:
        results.print(t("templates.several", count=len(seen.sequences)), soft_wrap=True)
    for whole in seen.sequences:
        shown = replace(whole, ids=whole.ids[:_SHOWN_TOKENS], learn=whole.learn[:_SHOWN_TOKENS])
        results.print(_table(shown, seen.chat_format) if tokens else _marked(shown, seen.chat_format), soft_wrap=True)
        if len(whole.ids) > _SHOWN_TOKENS:
            results.print(t("cli.tokens_go_on", shown=_SHOWN_TOKENS, tokens=len(whole.ids)))
        results.print(_legend(whole if seen.spoken else shown, seen), soft_wrap=True)


def _legend(sequence: Rendered, seen: Seen) -> str:
    """Say how much is learned, and of an answer what ends it."""
    counts = {"tokens": len(sequence.ids), "learned": sum(sequence.learn)}
    if not (seen.spoken and counts["learned"]):
        return t("cli.as_model_legend", **counts)
    end = readable(seen.chat_format.tokenizer, [sequence.ids[-1]])[0]
    return escape(t("templates.legend", **counts, end=end))


def _marked(sequence: Rendered, chat_format: ChatFormat) -> Text:
    """Return the text of a sequence with its learned parts marked, by colour and where that is lost by signs too.

    Tokens of one part are decoded together: a character may be several tokens.
    """
    text = Text()
    for learned, pairs in groupby(zip(sequence.ids, sequence.learn, strict=True), key=itemgetter(1)):
        part = str(chat_format.tokenizer.decode([token for token, _ in pairs]))
        signed = f"⟦{part}⟧" if learned and not results.is_terminal else part
        text.append(signed, style="black on green" if learned else "dim")
    return text


def _table(sequence: Rendered, chat_format: ChatFormat) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for key, side in (("position", "right"), ("id", "right"), ("text", "left"), ("learned", "left")):
        table.add_column(t(f"templates.column_{key}"), justify="right" if side == "right" else "left")
    for position, (token, learned, text) in enumerate(
        zip(sequence.ids, sequence.learn, readable(chat_format.tokenizer, sequence.ids), strict=True)
    ):
        style = "green" if learned else "dim"
        cells = (str(position), str(token), text, t("templates.is_learned") if learned else "")
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def _as_json(row: int, seen: Sequence[Seen]) -> dict[str, Any]:
    """Return what ``--json`` promises: ``row``, ``text`` and ``sequences`` with ``ids``, ``learn`` and ``tokens``."""
    sequences = []
    for item in seen:
        for sequence in item.sequences:
            sequences.append({
                **({"answer": "good" if item.title == "cli.answer_good" else "bad"} if item.title else {}),
                "ids": list(sequence.ids),
                "learn": list(sequence.learn),
                "tokens": readable(item.chat_format.tokenizer, sequence.ids),
            })  # fmt: skip
    last = seen[-1]
    text = str(last.chat_format.tokenizer.decode(list(last.sequences[-1].ids))) if last.sequences else ""
    notes = list(dict.fromkeys(note.text() for item in seen for note in item.notes))
    return {"row": row, "text": text, "sequences": sequences, "notes": notes}

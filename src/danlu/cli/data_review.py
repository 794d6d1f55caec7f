"""``danlu data review``: rows that a model has made are accepted, changed or turned down by a person."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel

from danlu.cli.common import JsonOption, console, print_json, results
from danlu.data.making.review import Reviewed
from danlu.errors import UsageError
from danlu.i18n import t

_KEYS = "ynesq"


def review(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help=t("making.arg_made"))],
    accept: Annotated[str | None, typer.Option("--accept", metavar="all|1,3,5-9", help=t("making.opt_accept"))] = None,
    reject: Annotated[str | None, typer.Option("--reject", metavar="all|1,3,5-9", help=t("making.opt_reject"))] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide about the rows that a model has made."""
    reviewed = Reviewed.open(file)
    if accept is not None or reject is not None:
        accepted = numbers_of(accept, reviewed) if accept else []
        rejected = numbers_of(reject, reviewed) if reject else []
        both = sorted({*accepted} & {*rejected})
        if both:
            raise UsageError("making.both", numbers=", ".join(str(number + 1) for number in both))
        reviewed.mark(accepted, accept=True)
        reviewed.mark(rejected, accept=False)
    elif not as_json and reviewed.waiting:
        if not sys.stdin.isatty():
            raise UsageError("making.nobody_there", str(file), waiting=len(reviewed.waiting))
        _ask(reviewed)
    counts = {
        "rows": len(reviewed.rows), "accepted": reviewed.accepted, "waiting": len(reviewed.waiting),
        "rejected": len(reviewed.rows) - reviewed.accepted - len(reviewed.waiting),
    }  # fmt: skip
    if as_json:
        print_json({"file": str(file), **counts})
        return
    results.print(t("making.reviewed", **counts), soft_wrap=True)
    if reviewed.accepted:
        console.print(escape(t("making.train_next", file=file)), soft_wrap=True)


def numbers_of(text: str, reviewed: Reviewed) -> list[int]:
    """Return the rows that are named, from 0: ``all`` that wait for review, or numbers and ranges from 1.

    Raises:
        UsageError: there is no such row, or it is no number.
    """
    if text == "all":
        return reviewed.waiting
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise UsageError("making.bad_numbers", text=part.strip())
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[0] < 1 or numbers[-1] > len(reviewed.rows):
            raise UsageError("making.no_such_row", text=part.strip(), rows=len(reviewed.rows))
        found += [number - 1 for number in numbers]
    return list(dict.fromkeys(found))


def _ask(reviewed: Reviewed) -> None:
    """Show row after row until all are decided or somebody has had enough; each decision is written at once."""
    waiting = reviewed.waiting
    for place, number in enumerate(waiting, start=1):
        row = reviewed.rows[number]
        _show(row, t("making.place", place=place, of=len(waiting)))
        key = ""
        while key not in set(_KEYS):
            console.print(t("making.keys"), end=" ")
            key = typer.getchar(echo=False).casefold()
            console.print(escape(key))
        if key == "q":
            return
        if key == "e":
            question = typer.prompt(t("making.ask_question"), default=str(row["instruction"]), err=True)
            answer = typer.prompt(t("making.ask_answer"), default=str(row["output"]), err=True)
            reviewed.edit(number, question, answer)
        elif key != "s":
            reviewed.mark([number], accept=key == "y")


def _show(row: dict[str, Any], title: str) -> None:
    made = row["made"]
    where = " · ".join(str(made[name]) for name in ("file", "heading", "page") if name in made)
    source = made.get("passage") or (f"{made['question']}\n→ {made['answer']}" if "question" in made else "")
    if source:
        console.print(Panel(escape(str(source)), title=escape(where) or t("making.source"), style="dim"))
    said = f"[bold]{escape(str(row['instruction']))}[/bold]\n→ {escape(str(row['output']))}"
    kind = t(f"making.name_{made['kind']}")
    console.print(Panel(said, title=f"{title} · {kind}"))

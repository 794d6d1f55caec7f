"""``danlu data diff``: what differs between two versions of a data set, or between two files."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.data.datasets import DatasetLibrary
from danlu.data.difference import Change, Difference, Said, difference, words_changed
from danlu.errors import NotFoundError
from danlu.i18n import t

_SHOWN = 20
_LONG = 600
_STYLES: dict[Change, str] = {"same": "", "removed": "red strike", "added": "green"}
# Without colours the words that differ are told apart by signs.
_SIGNS: dict[Change, tuple[str, str]] = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}


def diff(
    first: Annotated[str, typer.Argument(metavar="OLD|NAME", help=t("diff.arg_old"))],
    second: Annotated[str | None, typer.Argument(metavar="NEW", help=t("diff.arg_new"))] = None,
    full: Annotated[bool, typer.Option("--full", help=t("diff.opt_full"))] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions of a data set, or between two files."""
    library = DatasetLibrary(home_of(home).datasets)
    old, new = (first, second) if second is not None else _last_two(library, first)
    found = difference(library.source_of(old), library.source_of(new))
    if as_json:
        print_json({
            "old": old, "new": new, "same": found.same,
            "removed": [vars(item) for item in found.removed], "added": [vars(item) for item in found.added],
            "changed": [{"old": vars(one), "new": vars(other)} for one, other in found.changed],
        })  # fmt: skip
        return
    counts = {"removed": len(found.removed), "added": len(found.added), "changed": len(found.changed)}
    results.print(t("diff.counts", old=escape(old), new=escape(new), same=found.same, **counts), soft_wrap=True)
    _show(found, full=full)


def _last_two(library: DatasetLibrary, name: str) -> tuple[str, str]:
    """Return the version of a data set before its newest one, and the newest.

    Raises:
        NotFoundError: there are not two.
    """
    found = library.versions(name)
    if len(found) < 2:
        raise NotFoundError("diff.only_one", name=name, count=len(found))
    return f"{name}@{found[1].version}", f"{name}@{found[0].version}"


def _show(found: Difference, *, full: bool) -> None:
    most = len(found.removed) + len(found.added) + len(found.changed) if full else _SHOWN
    for sign, style, rows in (("-", "red", found.removed), ("+", "green", found.added)):
        for item in rows[:most]:
            results.print(Text(f"{sign} {item.row}: {_short(item.question, full=full)}", style), soft_wrap=True)
            if item.answer and item.answer != item.question:
                results.print(Text(f"    {_short(item.answer, full=full)}", style), soft_wrap=True)
        _say_more(len(rows) - most)
    for one, other in found.changed[:most]:
        _show_change(one, other, full=full)
    _say_more(len(found.changed) - most)


def _show_change(one: Said, other: Said, *, full: bool) -> None:
    numbers = str(one.row) if one.row == other.row else f"{one.row} → {other.row}"
    results.print(Text.assemble(f"~ {numbers}: ", _marked(one.question, other.question, full=full)), soft_wrap=True)
    if one.answer or other.answer:
        results.print(Text.assemble("    ", _marked(one.answer, other.answer, full=full)), soft_wrap=True)


def _marked(old: str, new: str, *, full: bool) -> Text:
    """Return two texts as one, with what was removed and added marked: by colours, or by signs where there are none."""
    text = Text()
    for kind, part in words_changed(old, new):
        shown = part
        if kind == "same" and not full and len(part) > _LONG:
            shown = f"{part[: _LONG // 2]} … {part[-_LONG // 2 :]}"
        before, after = ("", "") if results.color_system is not None else _SIGNS[kind]
        text.append(f"{before}{shown}{after}", _STYLES[kind])
    return text


def _short(text: str, *, full: bool) -> str:
    return text if full or len(text) <= _LONG else f"{text[:_LONG]} … ({len(text):,})"


def _say_more(more: int) -> None:
    if more > 0:
        console.print(t("diff.more", count=more), soft_wrap=True)

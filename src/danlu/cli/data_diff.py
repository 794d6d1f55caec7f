"""``danlu data diff``: what differs between two versions of a data set, or between two files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from danlu.cli.common import HomeOption, JsonOption, home_of, print_json, results
from danlu.data.datasets import DatasetLibrary
from danlu.data.diff import Changed, RowDiff, changed_fields, diff_rows, rows_of, text_of
from danlu.data.rows import JsonValue
from danlu.data.word_diff import Span, word_diff
from danlu.errors import NotFoundError, UsageError
from danlu.i18n import t

_SHOWN: Final = 20
_CHARACTERS: Final = 200
# What both sides have in common is shown around what differs.
_AROUND: Final = 40
_STYLES: Final = {" ": "", "-": "red", "+": "green"}
_MARKS: Final = {" ": ("", ""), "-": ("[-", "-]"), "+": ("{+", "+}")}
_Values = Mapping[str, JsonValue]


def diff(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help=t("versions.arg_diff"))],
    old: Annotated[str | None, typer.Argument(metavar="OLD|FILE", help=t("versions.arg_old"))] = None,
    new: Annotated[str | None, typer.Argument(metavar="NEW", help=t("versions.arg_new"))] = None,
    full: Annotated[bool, typer.Option("--full", help=t("versions.opt_full"))] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which rows were added, removed and changed."""
    library = DatasetLibrary(home_of(home).datasets)
    names = _sides(library, name, old, new)
    sources = [library.source_of(side) for side in names]
    with TemporaryDirectory() as scratch:
        first, second = (rows_of(source, Path(scratch) / f"{at}.jsonl") for at, source in enumerate(sources))
        found = diff_rows(first, second, (sources[0].family(), sources[1].family()))
        if as_json:
            print_json(_as_json(found, names))
        else:
            _print(found, names, full=full)
        first.close()
        second.close()


def _sides(library: DatasetLibrary, name: str, old: str | None, new: str | None) -> tuple[str, str]:
    """Return what is compared, as it can be opened."""
    versions = library.versions(name)
    if not versions:
        if old is None or new is not None:
            raise UsageError("versions.two_to_compare", name)
        return name, old
    newest = f"{name}@{versions[0].version}"
    if old is None:
        if len(versions) == 1:
            raise UsageError("versions.only_one", name, version=versions[0].version)
        return f"{name}@{versions[1].version}", newest
    if new is not None:
        return _version(library, name, old), _version(library, name, new)
    try:
        return _version(library, name, old), newest
    except NotFoundError:
        # A name of another data set, or a file, that this one is compared with.
        if library.pinned(old) is not None or Path(old).exists():
            return newest, old
        raise


def _version(library: DatasetLibrary, name: str, begin: str) -> str:
    found = library.require(begin if begin.startswith(f"{name}@") else f"{name}@{begin}")
    return f"{name}@{found.version}"


def _as_json(found: RowDiff, names: Sequence[str]) -> dict[str, Any]:
    """Return everything that differs; rows are counted from 1."""
    changed = []
    for pair in found.changed:
        before, after = found.old.row(pair.old).values, found.new.row(pair.new).values
        fields = [{"field": item.field, "old": item.old, "new": item.new} for item in changed_fields(before, after)]
        changed.append({
            "old_row": pair.old + 1, "new_row": pair.new + 1, "question": pair.question, "fields": fields,
            "old": before, "new": after,
        })  # fmt: skip
    return {
        "old": {"name": names[0], "rows": len(found.old)},
        "new": {"name": names[1], "rows": len(found.new)},
        "counts": _counts(found),
        "near_questions_compared": found.compared,
        "added": [{"row": number + 1, "values": found.new.row(number).values} for number in found.added],
        "removed": [{"row": number + 1, "values": found.old.row(number).values} for number in found.removed],
        "changed": changed,
    }


def _counts(found: RowDiff) -> dict[str, int]:
    return {
        "added": len(found.added),
        "removed": len(found.removed),
        "changed": len(found.changed),
        "same": found.same,
    }


def _print(found: RowDiff, names: Sequence[str], *, full: bool) -> None:
    results.print(
        Text(t("versions.diff_head", old=names[0], rows=len(found.old), new=names[1], new_rows=len(found.new))),
        style="bold", soft_wrap=True,
    )  # fmt: skip
    results.print(t("versions.diff_counts", **_counts(found)), soft_wrap=True)
    if not found.compared:
        results.print(t("versions.diff_not_compared"), style="yellow", soft_wrap=True)
    for pair in _first(found.changed, full=full):
        _print_changed(found, pair, full=full)
    _print_rest("versions.more_changed", len(found.changed), full=full)
    for number in _first(found.removed, full=full):
        _print_row("-", number, found.old.row(number).values, full=full)
    _print_rest("versions.more_removed", len(found.removed), full=full)
    for number in _first(found.added, full=full):
        _print_row("+", number, found.new.row(number).values, full=full)
    _print_rest("versions.more_added", len(found.added), full=full)


def _first(items: Sequence[Any], *, full: bool) -> Sequence[Any]:
    return items if full else items[:_SHOWN]


def _print_rest(key: str, count: int, *, full: bool) -> None:
    """Say how many are not shown."""
    if not full and count > _SHOWN:
        results.print(t(key, more=count - _SHOWN), style="dim", soft_wrap=True)


def _print_changed(found: RowDiff, pair: Changed, *, full: bool) -> None:
    before, after = found.old.row(pair.old).values, found.new.row(pair.new).values
    key = "versions.changed_same" if pair.question == "same" else "versions.changed_near"
    fields = changed_fields(before, after)
    results.print()
    results.print(Text(f"~ {t(key, old=pair.old + 1, new=pair.new + 1)}"), style="yellow", soft_wrap=True)
    differing = {item.field for item in fields}
    # What the row is about, where that is among what has not changed.
    about = next((text for name, value in after.items() if (text := text_of(value)) and name not in differing), None)
    if about is not None:
        results.print(Text(f"    {_cut(about, full=full)}"), style="dim", soft_wrap=True)
    for item in fields:
        line = Text(f"    {item.field}: ")
        for span in word_diff(item.old or "", item.new or ""):
            opening, closing = _MARKS[span.sign]
            line.append(f"{opening}{_shown(span, full=full)}{closing}", style=_STYLES[span.sign])
        results.print(line, soft_wrap=True)


def _print_row(sign: str, number: int, values: _Values, *, full: bool) -> None:
    results.print()
    results.print(Text(f"{sign} {t('versions.row', row=number + 1)}"), style=_STYLES[sign], soft_wrap=True)
    for name, value in values.items():
        text = text_of(value)
        if text is not None:
            results.print(Text(f"{sign}   {name}: {_cut(text, full=full)}"), style=_STYLES[sign], soft_wrap=True)


def _shown(span: Span, *, full: bool) -> str:
    """Return a stretch of text; of a long one that is the same, its ends."""
    if full or span.sign != " " or len(span.text) <= 3 * _AROUND:
        return span.text
    return f"{span.text[:_AROUND]} … {span.text[-_AROUND:]}"


def _cut(text: str, *, full: bool) -> str:
    """Return the beginning of a text and how much more there is."""
    if full or len(text) <= _CHARACTERS:
        return text
    return t("versions.more_text", text=text[:_CHARACTERS], more=len(text) - _CHARACTERS)

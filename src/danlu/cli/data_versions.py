"""``danlu data versions`` and ``data remove``: versions of a data set, where they came from, which runs need them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.data.datasets import DatasetLibrary
from danlu.data.manifest import DatasetManifest, Origin, RepairOrigin
from danlu.files import format_bytes
from danlu.i18n import t
from danlu.jobs.learned import learned_from, require_unneeded
from danlu.jobs.runs import Runs

_HASH: Final = 12
_RUNS: Final = 5


def versions(
    name: Annotated[str, typer.Argument(metavar="NAME", help=t("versions.arg_name"))],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a data set, newest first, with where each came from and which runs learned from it."""
    folder = home_of(home)
    library = DatasetLibrary(folder.datasets)
    wanted = library.require(name)
    found = [wanted] if name != wanted.name else library.versions(name)
    learned = learned_from(Runs(folder))
    if as_json:
        listed = [
            {
                **item.model_dump(mode="json"),
                "kind": item.kind,
                "left_out_file": None if (file := library.left_out_file(item)) is None else str(file),
                "runs": learned.of(item),
            }
            for item in found
        ]
        print_json({"name": wanted.name, "versions": listed, "unreadable_runs": learned.unreadable})
        return
    for number, item in enumerate(found):
        if number:
            results.print()
        _print(item, library, learned.of(item))
    if learned.unreadable:
        names = ", ".join(learned.unreadable)
        console.print(escape(t("versions.unreadable", count=len(learned.unreadable), runs=names)), soft_wrap=True)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help=t("versions.arg_remove"))],
    force: Annotated[bool, typer.Option("--force", help=t("versions.opt_force"))] = False,
    home: HomeOption = None,
) -> None:
    """Delete a data set with all its versions, or one version of it."""
    folder = home_of(home)
    library = DatasetLibrary(folder.datasets)
    found = library.require(name)
    gone = [found] if name != found.name else library.versions(name)
    if not force:
        require_unneeded(name, gone, Runs(folder))
    library.remove(name)
    removed = name if name == found.name else f"{found.name}@{found.version}"
    console.print(escape(t("cli.removed", name=removed)))


def left_out_lines(manifest: DatasetManifest, library: DatasetLibrary) -> list[str]:
    """Say which rows of a version's file were left out, by the reason, and where they are listed; none if none were."""
    if not manifest.unusable:
        return []
    count = sum(manifest.unusable.values())
    reasons = [
        t("versions.left_out_reason", count=number, code=code)
        for code, number in sorted(manifest.unusable.items(), key=lambda item: (-item[1], item[0]))
    ]
    where = library.left_out_file(manifest)
    return [t("versions.left_out", count=count, rows=count + manifest.rows, file=where), *reasons]


def _print(item: DatasetManifest, library: DatasetLibrary, runs: list[str]) -> None:
    """Print one version: a head, and a line for each thing that is known of it."""
    date = datetime.fromisoformat(item.created_at).astimezone().strftime("%Y-%m-%d %H:%M")
    head = t("versions.head", name=item.name, version=item.version, date=date, rows=item.rows, format=item.row_format)
    results.print(f"[bold]{escape(head)}[/bold]", soft_wrap=True)
    lines = [
        *_origin_lines(item),
        *left_out_lines(item, library),
        t("versions.hash", sha256=item.sha256[:_HASH]),
    ]
    if runs:
        shown = ", ".join(runs[:_RUNS])
        more = len(runs) - _RUNS
        lines.append(t("versions.runs", runs=shown) if more <= 0 else t("versions.runs_more", runs=shown, more=more))
    else:
        lines.append(t("versions.no_runs"))
    for line in lines:
        results.print(f"  {escape(line)}", soft_wrap=True)


def _origin_lines(item: DatasetManifest) -> list[str]:
    origin = item.origin
    if origin is None:
        return [t("versions.from_old", file=item.source)]
    lines = [_from(origin, item.source)]
    if origin.listed:
        lines.append(t("versions.listed", entry=origin.listed))
    if item.reading is not None:
        said = item.reading.model_dump(exclude_defaults=True)
        lines.append(t("versions.reading", reading=", ".join(f"{key}={value}" for key, value in said.items())))
    if origin.repair is not None:
        lines += _repair_lines(origin.repair)
    if origin.pseudo:
        accepted = origin.pseudo - (item.left_out or 0)
        lines.append(t("versions.pseudo", rows=origin.pseudo, accepted=accepted))
    if origin.feedback is not None:
        lines.append(t("versions.feedback", **origin.feedback.model_dump()))
    if origin.parent:
        lines.append(t("versions.parent", version=origin.parent))
    return lines


def _from(origin: Origin, source: str) -> str:
    read = ", ".join(f"{item.kind} ({item.encoding})" if item.encoding else item.kind for item in origin.read_as)
    if origin.hub:
        return t("versions.from_hub", hub=origin.hub, read=read)
    if origin.sha256 is None or origin.bytes is None:
        return t("versions.from_old", file=origin.file or source)
    key = "versions.from_folder" if origin.files > 1 else "versions.from_file"
    size = format_bytes(origin.bytes)
    return t(key, file=origin.file, size=size, sha256=origin.sha256[:_HASH], read=read, files=origin.files)


def _repair_lines(repair: RepairOrigin) -> list[str]:
    """Say what was mended before the file was registered."""
    mended = ", ".join(f"{t(f'versions.repair_{name}')} {count}" for name, count in repair.repairs.items()) or "–"
    told = {"source": repair.source, "sha256": (repair.sha256 or "–")[:_HASH], "mended": mended}
    lines = [t("versions.repair", read=repair.read, written=repair.written, **told)]
    return [*lines, t("versions.repair_edited")] if repair.edited else lines

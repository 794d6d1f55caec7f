"""``danlu data repair``: a copy of a file in which what can be mended safely is mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.data.checks.repair import USUAL, RepairLog, repaired, repairs_named
from danlu.data.datasets import DatasetLibrary
from danlu.data.manifest import repair_report
from danlu.data.stored import write_rows
from danlu.errors import UsageError
from danlu.files import sha256_of, write_json
from danlu.i18n import t

_SHOWN = 8


def repair(
    file: Annotated[str, typer.Argument(metavar="FILE|NAME", help=t("cli.arg_data"))],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.jsonl", help=t("cli.opt_repair_out"))] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="REPAIR,…", help=t("cli.opt_repair_only"))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=t("cli.opt_repair_dry"))] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a repaired copy, and beside it what was done."""
    if out is None and not dry_run:
        raise UsageError("checks.repair_where")
    if out is not None and (out.exists() or out.suffix != ".jsonl"):
        raise UsageError("checks.repair_exists" if out.exists() else "checks.repair_suffix", str(out))
    library = DatasetLibrary(home_of(home).datasets)
    source, pinned = library.source_of(file), library.pinned(file)
    wanted = repairs_named(only) if only else USUAL
    log = RepairLog()
    rows = repaired(source, source.family(), wanted, log)
    lines = (json.dumps(row.values, ensure_ascii=False) for row in rows)
    if out is None or dry_run:
        _drain(lines)
    else:
        partial = out.with_name(f".{out.name}.part")
        try:
            write_rows(partial, lines)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
        done = {
            "source": source.path.name if pinned is None else f"{pinned.name}@{pinned.version}",
            "sha256": sha256_of(source.path) if source.path.is_file() else None,
            "read": log.read,
            "written": log.written,
            "written_sha256": sha256_of(out),
            "repairs": log.changed,
        }
        write_json(repair_report(out), done)
    if as_json:
        told = {"out": None if out is None or dry_run else str(out), "read": log.read, "written": log.written}
        print_json({**told, "repairs": log.changed})
        return
    for name, numbers in log.changed.items():
        shown = ", ".join(map(str, numbers[:_SHOWN])) + (" …" if len(numbers) > _SHOWN else "")
        results.print(t(f"cli.repaired_{name}", count=len(numbers), rows=shown), soft_wrap=True)
    if not log.changed:
        results.print(t("cli.nothing_to_repair"))
    if out is not None and not dry_run:
        console.print(escape(t("cli.repaired", out=out, written=log.written, read=log.read)), soft_wrap=True)


def _drain(lines: Iterator[str]) -> None:
    for _ in lines:
        pass

"""``danlu export``: a run's weights in a format that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json
from danlu.files import format_bytes
from danlu.i18n import t
from danlu.jobs.runs import Runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", help=t("cli.export"))(export)


def export(
    name: Annotated[str, typer.Argument(metavar="RUN", help=t("cli.arg_run"))],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help=t("cli.opt_to"))],
    kind: Annotated[
        Literal["merged", "gguf", "adapter", "adapter-gguf", "ollama"],
        typer.Option("--format", help=t("cli.opt_format")),
    ] = "merged",
    quant: Annotated[
        Literal["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "f16", "bf16", "f32"] | None,
        typer.Option("--quant", help=t("cli.opt_quant")),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the weights of a finished run and check that they agree with it."""
    folder = home_of(home)
    run = Runs(folder).get(name)
    console.print(escape(t("cli.exporting", format=kind, to=to)))
    from danlu.jobs.exporting import export_run  # loads torch

    result = export_run(folder, run, to, kind, quant)
    if as_json:
        print_json(
            {
                "path": str(result.path),
                "files": list(result.files),
                "bytes": result.bytes,
                "agreement": result.agreement.model_dump() if result.agreement else None,
            }
        )
        return
    console.print(escape(t("cli.exported", path=to, size=format_bytes(result.bytes))))
    if result.agreement is not None:
        console.print(escape(t("card.agreement", **result.agreement.model_dump())))

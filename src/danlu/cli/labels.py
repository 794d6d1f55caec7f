"""``danlu pseudo-label``: a finished run answers questions that nobody has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.forge import carry_out
from danlu.data.datasets import DatasetLibrary
from danlu.errors import ConflictError, TrainingError, UsageError
from danlu.i18n import language, t
from danlu.jobs.forge_order import LabelOrder, Order
from danlu.jobs.messages import Labelled, LabelRow
from danlu.jobs.runs import Runs
from danlu.planning.semi_rules import LEAST_AGREEMENT, LEAST_CONFIDENCE, SAMPLES, TEMPERATURE

_SHOWN = 4
_CHARACTERS = 60


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pseudo-label", help=t("cli.pseudo_label"))(pseudo_label)


def pseudo_label(
    name: Annotated[str, typer.Argument(metavar="RUN", help=t("cli.arg_run"))],
    questions: Annotated[str, typer.Option("--questions", metavar="NAME|FILE", help=t("cli.opt_questions"))],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help=t("cli.opt_label_out"))],
    samples: Annotated[int, typer.Option("--samples", min=2, max=64, help=t("cli.opt_samples"))] = SAMPLES,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.05, max=2.0, help=t("cli.opt_label_temperature"))
    ] = TEMPERATURE,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer questions with a finished run, and write the answers with what speaks for each."""
    folder = home_of(home)
    run = Runs(folder).get(name)
    if run.plan().objective == "pretrain":
        raise UsageError("cli.label_of_texts", run.name)
    if run.trained is None:
        raise TrainingError("jobs.not_finished", run.name, run=run.name)
    _require_free(out)
    DatasetLibrary(folder.datasets).open_questions(questions)  # a mistake is said before the model is loaded
    labels = LabelOrder(questions=questions, out=out.absolute(), samples=samples, temperature=temperature)
    done = carry_out(Order(task="label", home=folder.root, lang=language(), run=run.name, labels=labels)).labelled
    if done is None:
        raise ConflictError("cli.stopped_elsewhere", run.name)
    if as_json:
        print_json(
            {
                "run": run.name,
                "path": str(done.path),
                "questions": len(done.rows),
                "accepted": done.accepted,
                "doubts": done.doubts,
                "agreement": _mean([row.agreement for row in done.rows]),
                "confidence": _mean([row.confidence for row in done.rows]),
                "samples": samples,
                "temperature": temperature,
            }
        )
        return
    _show(done)
    console.print(escape(t("cli.labels_at", path=done.path)), soft_wrap=True)


def _require_free(out: Path) -> None:
    """Check that the file can be written and is not there yet: people edit such files.

    Raises:
        UsageError: it is there, or its folder is not.
    """
    if out.exists():
        raise UsageError("cli.label_out_exists", str(out))
    if out.suffix.lower() not in {".json", ".jsonl"}:
        raise UsageError("cli.label_out_suffix", str(out), suffix=out.suffix or "–")
    if not out.absolute().parent.is_dir():
        raise UsageError("cli.label_out_folder", str(out), folder=out.absolute().parent)


def _show(done: Labelled) -> None:
    """Print how many were accepted, and the surest and the most doubtful few with their scores."""
    results.print(t("cli.labels_accepted", accepted=done.accepted, questions=len(done.rows)))
    for doubt, count in sorted(done.doubts.items(), key=lambda item: -item[1]):
        limits = {"agreement": LEAST_AGREEMENT, "confidence": LEAST_CONFIDENCE}
        results.print("  " + t(f"cli.doubt_{doubt}", count=count, least=limits.get(doubt, 0)), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("question", "output", "agreement", "confidence", "weight", "accepted"):
        table.add_column(t(f"cli.label_{column}"), overflow="fold")
    for row in _some(done.rows):
        table.add_row(
            escape(_short(row.question)),
            escape(_short(row.output)),
            f"{row.agreement:.2f}",
            f"{row.confidence:.2f}",
            f"{row.weight:.2f}",
            t("cli.yes" if row.accepted else "cli.no"),
        )
    results.print(table)


def _some(rows: tuple[LabelRow, ...]) -> list[LabelRow]:
    ordered = sorted(rows, key=lambda row: (not row.accepted, -row.weight))
    return ordered if len(ordered) <= 2 * _SHOWN else [*ordered[:_SHOWN], *ordered[-_SHOWN:]]


def _short(text: str) -> str:
    line = " ".join(text.split()) or "–"
    return line if len(line) <= _CHARACTERS else line[: _CHARACTERS - 1] + "…"


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)

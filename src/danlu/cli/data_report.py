"""Shows what a check of data found: the verdict first, then kind after kind, the gravest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from danlu.cli.common import console, results
from danlu.data.checks.findings import DataReport, ProblemGroup, Severity
from danlu.i18n import t

_SHOWN: Final = 8
# Of what concerns the whole file (placeholders, say) so many are shown each for itself.
_EACH: Final = 5
_COLOURS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "info": "cyan"}
_SIGNS: Final[dict[Severity, str]] = {"error": "✗", "warning": "!", "info": "·"}


@contextmanager
def counted_rows() -> Iterator[Callable[[int, int, int], None]]:
    """Show how many rows have been looked at and how long the others will take, where there is somebody to see it."""
    with _bar() as bar:
        task = bar.add_task(t("cli.checking", rows=0), total=None)

        def show(rows: int, done: int, total: int) -> None:
            words = t("cli.comparing" if total and done >= total else "cli.checking", rows=rows)
            bar.update(task, description=words, completed=done, total=total or None)

        yield show


@contextmanager
def read_file(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much of a file has been read and how long the rest will take, where there is somebody to see it."""
    with _bar() as bar:
        task = bar.add_task(escape(t("files.progress", name=name)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def made_bar() -> Iterator[Callable[[int, int], None]]:
    """Show how many of the wanted rows there are and how long the others will take, where somebody can see it."""
    with _bar() as bar:
        task = bar.add_task(t("making.progress", done=0), total=None)
        yield lambda done, total: bar.update(
            task, description=t("making.progress", done=done), completed=min(done, total), total=total
        )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def print_report(report: DataReport, named: str) -> None:
    """Print a report for people.

    Args:
        report: the report.
        named: what was checked, as it was typed.
    """
    results.print(f"[bold]{escape(report.verdict)}[/bold]", soft_wrap=True)
    files = ", ".join(f"{file.kind} ({file.encoding})" if file.encoding else file.kind for file in report.files)
    results.print(t("cli.read_as", files=files, format=report.row_format, duplicates=report.duplicates), style="dim")
    for notice in report.notices:
        results.print(escape(notice), style="dim", soft_wrap=True)
    if report.kind == "questions":
        results.print(t("cli.questions_found"), soft_wrap=True)
    if report.characters is not None:
        results.print(t("cli.texts_found", documents=report.usable, characters=report.characters))
    if report.leaks is not None:
        results.print(t("cli.leaks_found", leaks=report.leaks))
    for group in report.groups:
        _print_group(report, group)
    repairs = sorted({group.repair for group in report.groups if group.repair})
    if repairs:
        command = f"danlu data repair {named} --only {','.join(repairs)} --out FILE.jsonl"
        results.print(t("cli.repair_hint", command=escape(command)), soft_wrap=True)
    if report.tokens is not None:
        results.print(t("cli.token_report", **report.tokens.model_dump()))


def _print_group(report: DataReport, group: ProblemGroup) -> None:
    some = [problem for problem in report.problems if problem.code == group.code]
    sign = f"[{_COLOURS[group.severity]}]{_SIGNS[group.severity]}[/{_COLOURS[group.severity]}]"
    for message, fix in list(dict.fromkeys((item.message, item.fix) for item in some))[
        : _EACH if not some[0].row else 1
    ]:
        results.print(f"{sign} {escape(message)}", soft_wrap=True)
        results.print(f"    [dim]{escape(fix)}[/dim]", soft_wrap=True)
    rows = ", ".join(
        f"{escape(problem.file)} {problem.row} ({problem.line})".strip() for problem in some[:_SHOWN] if problem.row
    )
    if rows:
        more = " …" if group.count > _SHOWN else ""
        results.print("    " + t("cli.at_rows", rows=rows + more, count=group.count), soft_wrap=True)

"""Shows on the terminal what a worker tells: stages, the plan with its reasons, the training bar, answers."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from danlu.cli.common import duration
from danlu.errors import DanluError
from danlu.events import Checkpoint, Eval, Sample, Started, Step, Warned
from danlu.files import format_bytes
from danlu.i18n import t
from danlu.jobs.messages import (
    Advance,
    Happened,
    Labelled,
    Note,
    PlanMade,
    Proved,
    Published,
    StageBegan,
    StageEnded,
    Told,
    Trained,
)
from danlu.jobs.runs import TrainReport
from danlu.llamafactory.translation import show
from danlu.planning.plan import Decision, Plan
from danlu.recipe_file import ReadRecipe


class Display:
    """Prints messages as they come; use as a context manager so that the progress bar is taken down.

    Attributes:
        seconds: how long each finished stage took.
        plan: the plan, once made.
        run: name of the run, once known.
        trained: the result of training, once there.
        proved: where the proof stands, once there.
        version: id of the registered version, once there.
        labelled: the answered questions, once there.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self.plan: Plan | None = None
        self.run: str | None = None
        self.trained: Trained | None = None
        self.proved: Proved | None = None
        self.version: str | None = None
        self.labelled: Labelled | None = None
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_bar()

    def show(self, message: Told) -> None:
        """Show one message."""
        match message:
            case StageBegan():
                self._drop_bar()
                self.console.print(f"[bold]▸ {escape(message.text)}[/bold]")
            case StageEnded():
                self._drop_bar()
                self.seconds[message.stage] = self.seconds.get(message.stage, 0.0) + message.seconds
                self.console.print(f"  [dim]✓ {duration(message.seconds)}[/dim]")
            case Note():
                self.console.print(f"  {escape(message.text)}")
            case Advance():
                self._advance(message)
            case PlanMade():
                self.plan, self.run = message.plan, message.run
                print_plan(self.console, message.plan, message.run)
            case Happened():
                self._event(message)
            case Trained():
                self.trained = message
                self._drop_bar()
            case Proved():
                self.proved = message
            case Published():
                self.version = message.version
            case Labelled():
                self._drop_bar()
                self.labelled = message

    def _advance(self, message: Advance) -> None:
        task = self._ensure_bar(message.text, message.total or None)
        written = format_bytes if message.unit == "bytes" else "{:,}".format
        of = f" / {written(message.total)}" if message.total else ""
        detail = f"{written(message.done)}{of}" if message.total > 1000 else ""
        self._bar.update(
            task, description=message.text, completed=message.done, total=message.total or None, detail=detail
        )

    def _event(self, message: Happened) -> None:
        match message.event:
            case Started() as event:
                self._drop_bar()
                task = self._ensure_bar(t("cli.step", step=event.from_step, steps=event.steps), event.steps)
                self._bar.update(task, completed=event.from_step)
            case Step() as event:
                steps = self.plan.settings.steps if self.plan else None
                task = self._ensure_bar("", steps)
                self._bar.update(
                    task,
                    completed=event.step,
                    description=t("cli.step", step=event.step, steps=steps or "?"),
                    detail=_figures(event),
                )
            case Eval() as event:
                text = t("cli.heldout", step=event.step, loss=event.heldout_loss)
                if event.preferred is not None:
                    text = t("cli.heldout_judged", heldout=text, preferred=event.preferred)
                self.console.print(f"  {text}")
            case Sample() as event:
                for answer in event.answers:
                    said = " ".join(answer.answer.split()) or "–"
                    text = t("cli.asked", step=event.step, question=answer.question, answer=said)
                    # Chinese has no blanks, and rich would begin a new line rather than break a word.
                    self.console.print(f"  [dim]{escape(text)}[/dim]", soft_wrap=True)
            case Warned() as event:
                self.console.print(f"  [yellow]{escape(event.message)}[/yellow]")
            case Checkpoint():
                pass
            case _:
                self._drop_bar()

    def _ensure_bar(self, description: str, total: int | None) -> TaskID:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(description, total=total, detail="")
        return self._task

    def _drop_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
            self._task = None


def _figures(event: Step) -> str:
    """Return what stands beside the bar: the loss, and of judged answers how they compare."""
    parts = [t("cli.loss", loss=event.loss)]
    if event.preferred is not None:
        parts.append(t("cli.preferred", preferred=event.preferred))
    if event.margin is not None:
        parts.append(t("cli.margin", margin=event.margin))
    return " · ".join(parts)


def print_plan(console: Console, plan: Plan, run: str) -> None:
    """Print the plan: each decided value with its reason, and what the run will cost."""
    table = _reasons()
    for decision in plan.decisions:
        mark = "" if decision.by == "danlu" else "·"
        table.add_row(
            f"{mark}{decision.field}", f"[bold]{_value(decision)}[/bold]", f"[dim]{escape(decision.because())}[/dim]"
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    if plan.mix:
        console.print(Padding(_mix(plan), (0, 0, 0, 2)))
    for notice in plan.notices:
        console.print(f"  [yellow]{escape(notice.text())}[/yellow]")
    if plan.prediction is not None:
        console.print(
            "  "
            + t(
                "cli.predicted",
                steps=plan.settings.steps,
                time=duration(plan.prediction.predicted_seconds),
                memory=format_bytes(plan.prediction.predicted_peak_rss_bytes),
                run=run,
            )
        )


def print_reading(console: Console, read: ReadRecipe, file: str) -> None:
    """Print how each key of a LLaMA-Factory file was read: what became of it, or why it has no field."""
    console.print(f"[bold]▸ {escape(t('cli.translated', file=file))}[/bold]")
    # What became something comes first; keys that had the same fate share a row.
    rows: dict[tuple[str, str], list[str]] = {}
    for item in sorted(read.translations, key=lambda item: item.field is None):
        fate = ("–" if item.field is None else f"{item.field}: {show(item.became)}", item.because())
        rows.setdefault(fate, []).append(f"{item.key}: {show(item.value)}")
    table = _reasons()
    for (became, because), keys in rows.items():
        table.add_row(escape("\n".join(keys)), f"[bold]{escape(became)}[/bold]", f"[dim]{escape(because)}[/dim]")
    console.print(Padding(table, (0, 0, 0, 2)))
    left = ", ".join(f"{field}: {show(value)}" for field, value in read.left_open().items())
    console.print(f"  {escape(t('cli.left_open', fields=left))}")


def print_error(console: Console, error: DanluError) -> None:
    """Print an error as one line."""
    console.print(f"[red]{t('cli.error')}[/red] {escape(error.message())}", soft_wrap=True)


def _mix(plan: Plan) -> Table:
    """Return the table of what is learned of each data set in an epoch."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(t("versions.mix_name"), overflow="fold")
    for key in ("rows", "weight", "drawn", "share"):
        table.add_column(t(f"versions.mix_{key}"), justify="right")
    names = Counter(item.name for item in plan.mix)
    for item in plan.mix:
        # Two versions of one data set are told apart.
        name = item.name if names[item.name] == 1 else f"{item.name}@{item.version}"
        weight = f"{item.weight:g}"
        if item.samples is not None:
            weight = t("versions.mix_samples", samples=item.samples, weight=weight)
        table.add_row(escape(name), str(item.rows), weight, str(item.drawn), f"{item.share:.1%}")
    return table


def _reasons() -> Table:
    """Return an empty table for names, values and reasons, in which nothing is cut off, Chinese neither."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    return table


def _value(decision: Decision) -> str:
    value = decision.value
    if isinstance(value, bool) or value is None:
        return t(f"cli.{'yes' if value else 'no'}")
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_prediction_error(to: Console, report: TrainReport) -> None:
    """Print what was predicted beside what it took."""
    error, predicted = report.prediction_error, report.plan
    if error is None or error.seconds is None or predicted is None:
        return
    to.print(
        t(
            "cli.prediction_error",
            predicted=duration(report.seconds / (1 + error.seconds)),
            taken=duration(report.seconds),
            time_off=error.seconds,
            memory=format_bytes(predicted.predicted_peak_rss_bytes),
            peak=format_bytes(report.peak_rss_bytes),
            memory_off=error.peak_rss_bytes,
        )
    )

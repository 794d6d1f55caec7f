"""TensorBoard's event files of a run, in ``runs/RUN/tensorboard/``: figures, probe answers and the plan as text.

Written by the training process itself: importing the writer takes 0.15 s beside torch, and it has a thread of its own
that writes. They stay on this machine, so questions and answers are in them.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from torch.utils.tensorboard import SummaryWriter

from danlu.events import Checkpoint, LoggedEvent, Sample, SampleAnswer, Started
from danlu.i18n import t
from danlu.jobs.trackers.figures import figures_of, flat
from danlu.jobs.trackers.run_settings import settings_of
from danlu.planning.plan import Plan
from danlu.recipe import Recipe
from danlu.recipe_file import dump_recipe

_FLUSH_SECONDS: Final = 10


class TensorBoardFiles:
    """The writer of one run's files; a resumed run adds a file that takes the place of the steps it does again.

    Args:
        folder: where the files go.
        recipe: what the person wants.
        plan: every value decided.
    """

    def __init__(self, folder: Path, recipe: Recipe, plan: Plan) -> None:
        self.folder = folder
        self._recipe = recipe
        self._plan = plan
        self._writer: SummaryWriter | None = None

    def see(self, logged: LoggedEvent) -> None:
        """Write an event.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        event, when = logged.event, datetime.fromisoformat(logged.time).timestamp()
        if isinstance(event, Started):
            self._open(event.from_step, when)
        if self._writer is None:
            return
        found = figures_of(event)
        if found is not None:
            step, figures = found
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step, walltime=when)
        if isinstance(event, Sample):
            for number, answer in enumerate(event.answers, start=1):
                self._writer.add_text(f"probes/{number}", _answer_text(answer), event.step, walltime=when)
        if isinstance(event, Checkpoint):
            # What lies before a checkpoint is not written again by a resumed run.
            self._writer.flush()

    def close(self) -> None:
        """Write everything to the disk.

        Raises:
            OSError: the disk is full.
        """
        if self._writer is not None:
            self._writer.close()

    def _open(self, from_step: int, when: float) -> None:
        """Begin a file; what earlier files say of steps that are done again no longer counts."""
        if from_step == 0:
            for path in self.folder.glob("events.out.tfevents.*"):
                path.unlink()
        purge_step = from_step + 1 if from_step else None
        self._writer = SummaryWriter(str(self.folder), purge_step=purge_step, flush_secs=_FLUSH_SECONDS)
        if from_step == 0:
            self._writer.add_text("plan/decisions", _decisions_text(self._plan), 0, walltime=when)
            self._writer.add_text("plan/settings", _settings_text(self._recipe, self._plan), 0, walltime=when)
            self._writer.add_text("plan/recipe", _verbatim(dump_recipe(self._recipe)), 0, walltime=when)


def _decisions_text(plan: Plan) -> str:
    head = [t("jobs.tensorboard_field"), t("jobs.tensorboard_value"), t("jobs.tensorboard_reason")]
    rows = [[item.field, str(item.value), item.because()] for item in plan.decisions]
    return _table([head, *rows])


def _settings_text(recipe: Recipe, plan: Plan) -> str:
    head = [t("jobs.tensorboard_field"), t("jobs.tensorboard_value")]
    return _table([head, *([name, value] for name, value in flat(settings_of(recipe, plan)).items())])


def _answer_text(answer: SampleAnswer) -> str:
    judged = {True: "✓", False: "✗", None: ""}[answer.passed]
    return f"{_verbatim(answer.question)}\n\n{judged}\n\n{_verbatim(answer.answer)}"


def _table(rows: list[list[str]]) -> str:
    head, *body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _verbatim(text: str) -> str:
    """Return a text as a block that TensorBoard's Markdown leaves as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])

"""Runs as folders: ``DANLU_HOME/runs/RUN/`` with recipe, plan, events, checkpoints, adapter and report.

The folder is the truth; a run that is being worked on holds a lock that dies with its process. Not for doing the
work (``pipeline``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from danlu.errors import ConflictError, NotFoundError, TrainingError
from danlu.events import Failed, Finished, LoggedEvent, Started, Step, Stopped, read_events
from danlu.files import read_as, write_text
from danlu.planning.plan import Plan, Prediction
from danlu.recipe import Recipe
from danlu.recipe_file import dump_recipe, load_recipe
from danlu.settings import Home

# Whoever asks whether a run is running holds its lock for a moment; that is no reason to refuse the work.
_GLANCE_SECONDS = 2.0

RunStatus = Literal["planned", "running", "finished", "stopped", "failed", "interrupted"]


class PredictionError(BaseModel):
    """How far a run was from what was predicted: actual by predicted, minus one; +0.1 took a tenth more.

    Attributes:
        seconds: time, for the steps that were made; None when there are none to compare.
        peak_rss_bytes: memory.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float | None
    peak_rss_bytes: float


def prediction_error(
    predicted: Prediction | None, *, steps: int, planned_steps: int, seconds: float, peak_rss_bytes: int
) -> PredictionError | None:
    """Compare a run with its prediction.

    A run that ended early, because it had learned all or was stopped, is compared with its share of the time.

    Args:
        predicted: what was predicted; None gives None.
        steps: steps that were made.
        planned_steps: steps that were to be made.
        seconds: time that they took, with all between them.
        peak_rss_bytes: largest resident memory.
    """
    if predicted is None:
        return None
    expected = predicted.predicted_seconds * steps / planned_steps
    return PredictionError(
        seconds=round(seconds / expected - 1, 4) if expected > 0 else None,
        peak_rss_bytes=round(peak_rss_bytes / predicted.predicted_peak_rss_bytes - 1, 4),
    )


class TrainReport(BaseModel):
    """What ``danlu train --json`` prints and ``report.json`` keeps."""

    model_config = ConfigDict(frozen=True)

    run: str
    status: Literal["finished", "stopped"]
    steps: int
    epochs: float
    train_loss: float
    heldout_loss_before: float | None
    heldout_loss: float | None
    examples_per_second: float
    tokens_per_second: float
    seconds: float
    peak_rss_bytes: int
    plan: Prediction | None
    prediction_error: PredictionError | None = None
    adapter: str | None
    weights: str | None = None

    @model_serializer(mode="wrap")
    def _without_unused(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave ``weights`` out where there is an adapter or nothing yet: the promised keys and no others."""
        values: dict[str, object] = as_usual(self)
        return values if self.weights is not None else {key: values[key] for key in values if key != "weights"}


@dataclass(frozen=True)
class RunFolder:
    """One run.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def events_path(self) -> Path:
        """Its event log."""
        return self.path / "events.jsonl"

    @property
    def adapter(self) -> Path:
        """Its adapter; there only when a run of LoRA has finished."""
        return self.path / "adapter"

    @property
    def trained(self) -> Path | None:
        """The folder of what was trained, ``adapter`` or ``weights``; None before the run has finished."""
        return next((path for path in (self.adapter, self.path / "weights") if path.is_dir()), None)

    @property
    def tokenizer(self) -> Path | None:
        """The folder of its tokenizer where that has new tokens or a template it was given; None for the base's own."""
        folder = self.path / "tokenizer"
        return folder if folder.is_dir() else None

    @property
    def stop_file(self) -> Path:
        """A file that asks the process at work to stop; any process may make it."""
        return self.path / "stop-requested"

    def write(self, recipe: Recipe, plan: Plan) -> None:
        """Write the recipe and the plan."""
        write_text(self.path / "recipe.yaml", dump_recipe(recipe))
        write_text(self.path / "plan.json", plan.model_dump_json(indent=2) + "\n")

    def recipe(self) -> Recipe:
        """Read the recipe."""
        return load_recipe(self.path / "recipe.yaml")

    def plan(self) -> Plan:
        """Read the plan.

        Raises:
            TrainingError: it is damaged or was written by another version.
        """
        path = self.path / "plan.json"
        try:
            return Plan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingError("jobs.plan_damaged", str(path)) from error

    def report(self) -> TrainReport | None:
        """Read what training left, or None before its end."""
        path = self.path / "report.json"
        return read_as(TrainReport, path) if path.is_file() else None

    def events(self) -> list[LoggedEvent]:
        """Read all events."""
        return read_events(self.events_path)

    def status(self) -> RunStatus:
        """Say where the run stands."""
        if self.is_running():
            return "running"
        for logged in reversed(self.events()):
            match logged.event:
                case Finished():
                    return "finished"
                case Stopped():
                    return "stopped"
                case Failed():
                    return "failed"
                case Started() | Step():
                    return "interrupted"
                case _:
                    continue
        return "planned"

    def is_running(self) -> bool:
        """Say whether a process works on the run now."""
        lock = FileLock(self.path / ".lock")
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however that ends.

        Raises:
            ConflictError: another process works on it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=_GLANCE_SECONDS)
        except Timeout:
            raise ConflictError("jobs.run_busy", self.name) from None
        try:
            yield
        finally:
            lock.release()


class Runs:
    """The runs of one home."""

    def __init__(self, home: Home) -> None:
        self.folder = home.runs

    def new(self, stem: str) -> RunFolder:
        """Create an empty run folder named after the data and the time."""
        base = f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        for suffix in ("", *(f"-{number}" for number in range(2, 100))):
            path = self.folder / (base + suffix)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return RunFolder(path)
        raise ConflictError("jobs.run_busy", base)

    def list(self) -> list[RunFolder]:
        """Return all runs, newest first."""
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if (path / "plan.json").is_file()]
        # Not the folder's own time: a lock that comes and goes in it changes that.
        paths.sort(key=lambda path: (path / "plan.json").stat().st_mtime_ns, reverse=True)
        return [RunFolder(path) for path in paths]

    def get(self, name: str) -> RunFolder:
        """Return a run.

        Raises:
            NotFoundError: there is none of this name.
        """
        path = self.folder / name
        if path.parent != self.folder or not (path / "plan.json").is_file():
            known = ", ".join(run.name for run in self.list()[:3]) or "–"
            raise NotFoundError("jobs.unknown_run", name=name, known=known)
        return RunFolder(path)

    def remove(self, name: str) -> None:
        """Delete a run's folder.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: it is running.
        """
        run = self.get(name)
        with run.locked():
            pass
        shutil.rmtree(run.path)

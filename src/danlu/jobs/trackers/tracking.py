"""The trackers of a run in its training process: starts them, passes events on, and says once when one has failed.

A tracker that fails never ends the run and never holds it up: it is left out from then on, with one warning.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from danlu.errors import RecipeError
from danlu.events import Emit, Event, LoggedEvent, Warned
from danlu.i18n import t
from danlu.jobs.trackers.order import SAID, External, Failure, FollowOrder, Opened
from danlu.jobs.trackers.run_settings import settings_of
from danlu.jobs.trackers.tensorboard_files import TensorBoardFiles
from danlu.planning.plan import Plan
from danlu.processes import ChildProcess, python_child
from danlu.recipe import Recipe
from danlu.settings import Home

# How long the end of a run waits for a tracker that is still sending; after that the tracker has failed.
_LAST_SECONDS: Final = 30.0
_PACKAGES: Final[dict[External, str]] = {"wandb": "wandb", "swanlab": "swanlab", "mlflow": "mlflow-skinny"}
_FAILED: Final = "jobs.tracker_failed"

TellWhere = Callable[[str], None]


def wanted(recipe: Recipe) -> tuple[External, ...]:
    """Return the trackers that a recipe names, each once; TensorBoard needs no naming."""
    return tuple(name for name in dict.fromkeys(recipe.report_to) if name in _PACKAGES)


def require_trackers(recipe: Recipe) -> None:
    """Check that the trackers that a recipe names are installed; costs nothing, so it can be asked first.

    Raises:
        RecipeError: one is not.
    """
    for name in wanted(recipe):
        found = importlib.util.find_spec(name)
        # A folder of that name in the working directory (wandb makes one) is found too, but has no file to load.
        if found is None or found.origin is None:
            raise RecipeError("jobs.tracker_missing", "report_to", tracker=name, package=_PACKAGES[name])
        if (
            name == "swanlab"
            and os.environ.get("SWANLAB_MODE") == "local"
            and not importlib.util.find_spec("swanboard")
        ):
            # SwanLab itself would go on without it, and nothing could show the run.
            raise RecipeError("jobs.swanlab_dashboard_missing", "report_to")


@contextmanager
def tracking(
    home: Home, folder: Path, recipe: Recipe, plan: Plan, write: Callable[[Event], LoggedEvent], tell_where: TellWhere
) -> Iterator[Emit]:
    """Give a receiver of events that writes them and shows them to the run's trackers.

    Args:
        home: the home folder.
        folder: the run's folder.
        recipe: what the person wants.
        plan: every value decided.
        write: writes an event into the log.
        tell_where: receives a sentence for each tracker that is ready: where the run can be seen.

    Raises:
        RecipeError: a tracker that the recipe names is not installed.
    """
    require_trackers(recipe)
    trackers: list[_Tracker] = [_TensorBoard(TensorBoardFiles(folder / "tensorboard", recipe, plan))]
    for name in wanted(recipe):
        order = FollowOrder(tracker=name, home=home.root, folder=folder, settings=settings_of(recipe, plan))
        trackers.append(_Follower(order, tell_where))

    def emit(event: Event) -> None:
        logged = write(event)
        for tracker in list(trackers):
            reason = tracker.see(logged)
            if reason is not None:
                trackers.remove(tracker)
                write(_warning(tracker, reason))

    try:
        yield emit
    except BaseException:
        _end(trackers)  # without a word: the log ends with why the run failed
        raise
    for warning in _end(trackers):
        write(warning)


def _end(trackers: Sequence[_Tracker]) -> list[Warned]:
    """Let all trackers come to their end, side by side; return a warning for each that did not."""
    for tracker in trackers:
        tracker.let_go()
    last = time.monotonic() + _LAST_SECONDS
    reasons = [(tracker, tracker.close(max(0.0, last - time.monotonic()))) for tracker in trackers]
    return [_warning(tracker, reason) for tracker, reason in reasons if reason is not None]


def _warning(tracker: _Tracker, reason: str) -> Warned:
    return Warned(code=_FAILED, message=t(_FAILED, tracker=tracker.name, reason=reason, log=str(tracker.log)))


class _Tracker(Protocol):
    name: str
    log: Path

    def see(self, logged: LoggedEvent) -> str | None:
        """Take note of an event; return why the tracker has failed, if it has."""

    def let_go(self) -> None:
        """Say that there is nothing more to come."""

    def close(self, seconds: float) -> str | None:
        """Wait at most so long for its end; return why it has failed, if it has."""


class _TensorBoard:
    """The event files, whose failures are those of the disk."""

    def __init__(self, files: TensorBoardFiles) -> None:
        self.name = "tensorboard"
        self.log = files.folder
        self._files = files

    def see(self, logged: LoggedEvent) -> str | None:
        try:
            self._files.see(logged)
        except OSError as error:
            return str(error)
        return None

    def let_go(self) -> None:
        pass

    def close(self, seconds: float) -> str | None:
        try:
            self._files.close()
        except OSError as error:
            return str(error)
        return None


class _Follower:
    """A follower process, which reads the log by itself; here only its words are listened to."""

    def __init__(self, order: FollowOrder, tell_where: TellWhere) -> None:
        self.name: str = order.tracker
        self.log = order.folder / "trackers" / f"{order.tracker}.log"
        self._tell_where = tell_where
        self._said: queue.SimpleQueue[Opened | Failure] = queue.SimpleQueue()
        self._failed_to_start: str | None = None
        try:
            self._start(order)
        except OSError as error:  # no memory or no room for another process
            self._failed_to_start = str(error)

    def see(self, logged: LoggedEvent) -> str | None:
        if self._failed_to_start is not None:
            return self._failed_to_start
        ended = self._child.poll() is not None
        if ended:
            self._listener.join()
        reason = self._heard()
        if reason is None and not ended:
            return None
        self._child.kill()  # and what it started
        return reason or self._child.ending()

    def let_go(self) -> None:
        if self._failed_to_start is None and self._child.popen.stdin is not None:
            self._child.popen.stdin.close()

    def close(self, seconds: float) -> str | None:
        if self._failed_to_start is not None:
            return self._failed_to_start
        if self._child.wait(seconds) is None:
            self._child.kill()
            return t("jobs.tracker_too_slow", seconds=round(_LAST_SECONDS))
        self._listener.join()
        self._child.kill()
        return self._heard() or (self._child.ending() if self._child.popen.returncode else None)

    def _start(self, order: FollowOrder) -> None:
        self._child = ChildProcess(python_child("danlu.jobs.trackers.follower"), log=self.log, stdout=subprocess.PIPE)
        self._listener = threading.Thread(target=self._listen, name=f"{self.name}-listener", daemon=True)
        self._listener.start()
        assert self._child.popen.stdin is not None
        self._child.popen.stdin.write(order.model_dump_json().encode("utf-8") + b"\n")
        self._child.popen.stdin.flush()

    def _listen(self) -> None:
        assert self._child.popen.stdout is not None
        for line in self._child.popen.stdout:
            if line.endswith(b"\n"):
                self._said.put(SAID.validate_json(line))

    def _heard(self) -> str | None:
        """Hand on where the run is shown; return why the tracker has failed, if it said so."""
        while not self._said.empty():
            match self._said.get():
                case Opened(where=where):
                    self._tell_where(t("jobs.tracker_opened", tracker=self.name, where=where))
                case Failure(reason=reason):
                    return reason
        return None

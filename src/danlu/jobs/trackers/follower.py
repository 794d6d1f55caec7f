"""The follower process: shows one run to one tracker by following the run's event log.

    python -m danlu.jobs.trackers.follower wandb

It reads its order from standard input, and when that closes (training is over, or its process is gone) it tells the
rest, waits a minute at most for the tracker, and ends. Not for TensorBoard, whose files the training process writes.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Protocol

from filelock import FileLock

from danlu.events import Event, Failed, Finished, LoggedEvent, Started, Stopped, follow_events
from danlu.files import read_as, write_text
from danlu.jobs.trackers.figures import figures_of
from danlu.jobs.trackers.order import Ending, Failure, FollowOrder, Opened, Progress
from danlu.processes import watch_parent

LAST_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5
_SAVE_SECONDS: Final = 5.0


class Tracker(Protocol):
    """A run in a tracker.

    Attributes:
        id: the tracker's id of it.
        where: its address, or its folder on this machine.
    """

    id: str
    where: str

    def log(self, step: int, figures: Mapping[str, float], when: datetime) -> None:
        """Tell the figures of a step."""

    def flush(self) -> None:
        """Hand on what has been told so far."""

    def close(self, ending: Ending) -> None:
        """Say how the run ended and wait until everything is stored."""


class OpenTracker(Protocol):
    """Begins a run in a tracker, or goes on with the one of the id."""

    def __call__(self, order: FollowOrder, known: str | None) -> Tracker:
        """Return the run."""


def follow(order: FollowOrder, over: threading.Event, tell_opened: OpenedTeller) -> None:
    """Tell a tracker what the event log says, from where it was left to the end of the run."""
    remembered = order.folder / "trackers" / f"{order.tracker}.json"
    with FileLock(remembered.with_suffix(".lock"), timeout=LAST_SECONDS):
        progress = read_as(Progress, remembered) if remembered.exists() else Progress()
        tracker = _opener(order)(order, progress.id)
        tell_opened(tracker.where)
        progress.id = tracker.id
        write_text(remembered, progress.model_dump_json())
        ending: Ending = "failed"
        saved = time.monotonic()
        for logged in follow_events(order.folder / "events.jsonl", over.is_set, _LOOK_SECONDS):
            ending = _ending_after(logged.event, ending)
            if logged.seq > progress.seq:
                _tell(tracker, logged, progress)
                progress.seq = logged.seq
            if time.monotonic() - saved > _SAVE_SECONDS:
                tracker.flush()
                write_text(remembered, progress.model_dump_json())
                saved = time.monotonic()
        tracker.flush()
        write_text(remembered, progress.model_dump_json())
        tracker.close(ending)


class OpenedTeller(Protocol):
    """Told once, when the tracker is ready."""

    def __call__(self, where: str, /) -> None:
        """Receive where the run is shown."""


def _tell(tracker: Tracker, logged: LoggedEvent, progress: Progress) -> None:
    """Tell an event's figures unless it is a step done again: it had the same figures the first time."""
    found = figures_of(logged.event)
    if found is None:
        return
    step, figures = found
    kind = logged.event.type
    if step > progress.steps.get(kind, -1):
        tracker.log(step, figures, datetime.fromisoformat(logged.time))
        progress.steps[kind] = step


def _ending_after(event: Event, ending: Ending) -> Ending:
    """Return how a run has ended whose last event may be this one; without a word it counts as failed."""
    match event:
        case Finished():
            return "finished"
        case Stopped():
            return "stopped"
        case Started() | Failed():
            return "failed"
        case _:
            return ending


def _opener(order: FollowOrder) -> OpenTracker:
    module = importlib.import_module(f"danlu.jobs.trackers.to_{order.tracker}")
    opener: OpenTracker = module.open_tracker
    return opener


def main() -> int:
    """Run the follower; return its exit status."""
    order = FollowOrder.model_validate_json(sys.stdin.buffer.readline())
    over = threading.Event()

    def end_in_time() -> None:
        over.set()
        time.sleep(LAST_SECONDS)
        os._exit(1)

    watch_parent(on_orphaned=end_in_time)
    if os.name == "posix":
        os.nice(10)  # the training goes first
    # Libraries, and processes they start, print where they like: only this program's own lines go to the parent.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)

    def tell(line: Opened | Failure) -> None:
        out.write(line.model_dump_json() + "\n")
        out.flush()

    try:
        follow(order, over, lambda where: tell(Opened(where=where)))
    except Exception as error:  # noqa: BLE001  whatever a foreign library raises ends this process and only this one
        traceback.print_exc()
        tell(Failure(reason=_reason(error)))
        return 1
    return 0


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


if __name__ == "__main__":
    raise SystemExit(main())

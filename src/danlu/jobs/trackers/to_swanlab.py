"""SwanLab: online where a key is configured, else offline, in the run's folder, to be sent later or never.

Only figures and settings are sent: terminal, code, git, packages and machine are left out.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import swanlab

from danlu.jobs.trackers.order import Ending, FollowOrder

_PROJECT: Final = "danlu"
_STATES: Final = {"finished": "success", "stopped": "aborted", "failed": "crashed"}


def open_tracker(order: FollowOrder, known: str | None) -> SwanLabRun:
    """Begin a run, or go on with the one of the id."""
    configured = swanlab.Settings()
    given = configured.model_fields_set
    offline = "mode" not in given and configured.api_key is None
    elsewhere = "log_dir" in given or "SWANLAB_LOGDIR" in os.environ
    run = swanlab.init(
        project=configured.project.name or _PROJECT,
        name=configured.experiment.name or order.run,
        id=known or configured.run.id or uuid.uuid4().hex[:12],
        resume="allow",
        config=order.settings,
        log_dir=None if elsewhere else str(order.folder / "swanlab"),
        mode="offline" if offline else None,
        settings=swanlab.Settings(
            interactive=False,
            terminal=swanlab.Settings.Terminal(proxy_type="none"),
            probe=swanlab.Settings.Probe(
                hardware=False,
                runtime=False,
                requirements=False,
                conda=False,
                git=False,
                swanlab=False,
                monitor=False,
            ),
        ),
    )
    return SwanLabRun(run)


class SwanLabRun:
    """A run of SwanLab.

    Args:
        run: as SwanLab has it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self.id: str = run.id
        self.where: str = run.url if run.mode == "online" else str(run.dir)

    def log(self, step: int, figures: Mapping[str, float], when: datetime) -> None:
        """Tell the figures of a step; SwanLab notes the time itself."""
        self._run.log(dict(figures), step=step)

    def flush(self) -> None:
        """Do nothing: SwanLab writes what it is told by itself."""

    def close(self, ending: Ending) -> None:
        """Say how the run ended and wait until everything is stored."""
        self._run.finish(state=_STATES[ending], error=None if ending == "finished" else ending)

"""Weights & Biases: online where a key is configured, else offline, in the run's folder.

Only figures and settings are sent: console, code, git, packages and machine are left out, and so are wandb's reports
about itself, unless ``WANDB_ERROR_REPORTING`` says otherwise.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from danlu.jobs.trackers.order import Ending, FollowOrder

_PROJECT: Final = "danlu"


def open_tracker(order: FollowOrder, known: str | None) -> WandbRun:
    """Begin a run, or go on with the one of the id."""
    configured = wandb.setup().settings
    offline = configured.mode == "online" and "WANDB_MODE" not in os.environ and not wandb.login(prompt=False)
    run = wandb.init(
        project=configured.project or _PROJECT,
        name=configured.run_name or order.run,
        id=known or configured.run_id or uuid.uuid4().hex[:12],
        resume="allow",
        config=order.settings,
        dir=os.environ.get("WANDB_DIR", str(order.folder)),
        mode="offline" if offline else None,
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    return WandbRun(run)


class WandbRun:
    """A run of wandb.

    Args:
        run: as wandb has it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self.id: str = run.id
        self.where: str = str(Path(run.dir).parent) if run.offline or run.disabled else run.url

    def log(self, step: int, figures: Mapping[str, float], when: datetime) -> None:
        """Tell the figures of a step; wandb notes the time itself."""
        self._run.log(dict(figures), step=step)

    def flush(self) -> None:
        """Do nothing: wandb writes what it is told at once."""

    def close(self, ending: Ending) -> None:
        """Say how the run ended and wait until everything is stored."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)

"""What a follower is asked, what it tells, and what it remembers; read by both sides, imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

External = Literal["wandb", "swanlab", "mlflow"]
Ending = Literal["finished", "stopped", "failed"]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FollowOrder(_Line):
    """Which run is to be shown to which tracker: one line on the follower's standard input, which then stays open.

    Attributes:
        tracker: its name.
        home: the home folder, where a local store of all runs lies.
        folder: the run's folder, whose event log is followed.
        settings: what the run is trained with, grouped.
    """

    tracker: External
    home: Path
    folder: Path
    settings: dict[str, Any]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name


class Opened(_Line):
    """The tracker takes figures; ``where`` is an address, or a folder on this machine."""

    kind: Literal["opened"] = "opened"
    where: str


class Failure(_Line):
    """The tracker failed; the follower ends."""

    kind: Literal["failure"] = "failure"
    reason: str


SAID: TypeAdapter[Opened | Failure] = TypeAdapter(Annotated[Opened | Failure, Field(discriminator="kind")])


class Progress(BaseModel):
    """What a tracker has been told; kept in the run's folder so that a resumed run tells nothing twice.

    Attributes:
        id: the tracker's own id of the run; None before its first figure.
        seq: number of the last event told.
        steps: last step told, by type of event.
    """

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    seq: int = 0
    steps: dict[str, int] = {}

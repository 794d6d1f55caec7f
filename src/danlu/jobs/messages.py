"""What a worker process tells the process that started it: one JSON object a line on its standard output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from danlu import errors
from danlu.errors import DanluError
from danlu.events import Event
from danlu.i18n import t
from danlu.jobs.runs import TrainReport
from danlu.models.sources.base import Progress
from danlu.planning.plan import Plan

Stage = Literal["model", "data", "plan", "train", "eval", "export", "label"]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageBegan(_Told):
    """A part of the work begins; ``text`` says what, in the reader's language."""

    kind: Literal["stage"] = "stage"
    stage: Stage
    text: str


class StageEnded(_Told):
    """A part of the work is done."""

    kind: Literal["stage_end"] = "stage_end"
    stage: Stage
    seconds: float


class Note(_Told):
    """A sentence for the reader."""

    kind: Literal["note"] = "note"
    text: str


class Advance(_Told):
    """How far a download, a conversion or an encoding is, in its unit; ``total`` is 0 when unknown."""

    kind: Literal["advance"] = "advance"
    text: str
    done: int
    total: int
    unit: Literal["bytes", "rows"] = "bytes"


class PlanMade(_Told):
    """The plan, before training starts."""

    kind: Literal["plan"] = "plan"
    run: str
    plan: Plan


class Happened(_Told):
    """An event of the run."""

    kind: Literal["event"] = "event"
    event: Event


class Trained(_Told):
    """Training is over."""

    kind: Literal["trained"] = "trained"
    report: TrainReport


class Proved(_Told):
    """A proof is written."""

    kind: Literal["proved"] = "proved"
    proof: Path
    report: Path


class Published(_Told):
    """A model version is registered."""

    kind: Literal["published"] = "published"
    version: str


class LabelRow(_Told):
    """A row of the file with pseudo labels; see ``jobs.labelling``."""

    question: str
    output: str
    agreement: float
    confidence: float
    weight: float
    accepted: bool


class Labelled(_Told):
    """Questions are answered and the file is written.

    ``doubts`` counts the answers that were not accepted by their reason; ``rows`` are all of them in short.
    """

    kind: Literal["labelled"] = "labelled"
    path: Path
    accepted: int
    doubts: dict[str, int]
    rows: tuple[LabelRow, ...]


class Refused(_Told):
    """The work ended with an error, to be raised again where the message arrives."""

    kind: Literal["error"] = "error"
    error: str
    key: str
    where: str | None
    params: dict[str, str | int | float | None]

    @classmethod
    def of(cls, error: DanluError) -> Refused:
        """Describe an error."""
        params = {k: v if isinstance(v, str | int | float) or v is None else str(v) for k, v in error.params.items()}
        return cls(error=type(error).__name__, key=error.key, where=error.where, params=params)

    def to_error(self) -> DanluError:
        """Return the error as it was."""
        kind: type[DanluError] = getattr(errors, self.error, DanluError)
        return kind(self.key, self.where, **self.params)  # type: ignore[arg-type,unused-ignore]


Told = Annotated[
    StageBegan | StageEnded | Note | Advance | PlanMade | Happened | Trained | Proved | Published | Labelled | Refused,
    Field(discriminator="kind"),
]
TOLD: TypeAdapter[Told] = TypeAdapter(Told)

Tell = Callable[[Told], None]


def pull_teller(tell: Tell) -> Callable[[Progress], None]:
    """Return a receiver of a pull's progress that tells it on."""

    def report(progress: Progress) -> None:
        if progress.note:
            tell(Note(text=progress.note))
        elif progress.done or progress.total:
            tell(Advance(text=t(f"jobs.pull_{progress.stage}"), done=progress.done, total=progress.total))

    return report

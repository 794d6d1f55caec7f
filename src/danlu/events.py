"""What happens in a run, as typed events in an append-only JSON Lines file.

The trainer writes, anybody follows: the command line, the server, a plain text editor. One event a line, numbered
from 1 without gaps; a line cut off by a crash is ignored by readers and removed by the next writer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from danlu.errors import MachineError
from danlu.files import disk_errors, why_invalid


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Planned(_Event):
    """The plan is made; training has not begun."""

    type: Literal["planned"] = "planned"
    predicted_seconds: float
    predicted_peak_rss_bytes: int
    steps: int


class Started(_Event):
    """The loop begins, or goes on from a checkpoint."""

    type: Literal["started"] = "started"
    from_step: int
    steps: int
    device: str
    dtype: str


class Step(_Event):
    """One optimizer step is done."""

    type: Literal["step"] = "step"
    step: int
    epoch: float
    loss: float = Field(description="mean over the supervised tokens of the step; of judged answers, over these")
    learning_rate: float
    grad_norm: float
    tokens: int = Field(description="real tokens of the step, padding does not exist")
    supervised_tokens: int
    seconds: float
    preferred: float | None = Field(None, description="share of judged answers on the right side; of those only")
    margin: float | None = Field(None, description="mean reward of good answers less that of bad ones; of those only")


class Eval(_Event):
    """The held-out examples were measured."""

    type: Literal["eval"] = "eval"
    step: int
    heldout_loss: float
    best: bool
    preferred: float | None = Field(None, description="share of judged answers on the right side; of those only")


class SampleAnswer(_Event):
    """One probe question and what the model says now."""

    question: str
    answer: str
    passed: bool | None = None


class Sample(_Event):
    """Answers to the probe questions at this step."""

    type: Literal["sample"] = "sample"
    step: int
    answers: tuple[SampleAnswer, ...]


class Checkpoint(_Event):
    """A checkpoint is on disk, complete."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    best: bool


class Warned(_Event):
    """Something a person should know; the run goes on."""

    type: Literal["warning"] = "warning"
    code: str
    message: str


class Finished(_Event):
    """The run came to its planned end (or stopped early because it stopped getting better)."""

    type: Literal["finished"] = "finished"
    step: int
    train_loss: float
    heldout_loss: float | None
    seconds: float
    peak_rss_bytes: int


class Failed(_Event):
    """The run ended with an error; ``code`` is the error's catalogue key."""

    type: Literal["failed"] = "failed"
    code: str
    message: str


class Stopped(_Event):
    """A person stopped the run; it can be resumed from its last checkpoint."""

    type: Literal["stopped"] = "stopped"
    step: int


Event = Annotated[
    Planned | Started | Step | Eval | Sample | Checkpoint | Warned | Finished | Failed | Stopped,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)

Emit = Callable[[Event], None]


class LoggedEvent(BaseModel):
    """An event with its number and time as it stands in the file."""

    model_config = ConfigDict(frozen=True)

    seq: int
    time: str
    event: Event


class EventLog:
    """Writer of one run's ``events.jsonl``; only one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._seq = _repair(path)
        # Unbuffered: what a full disk did not take must not come out later, behind another event.
        self._file = path.open("ab", buffering=0)

    def append(self, event: Event) -> LoggedEvent:
        """Write one event and hand it to the operating system before returning.

        Raises:
            MachineError: the disk is full.
        """
        logged = LoggedEvent(seq=self._seq + 1, time=datetime.now(UTC).isoformat(), event=event)
        line = {"seq": logged.seq, "time": logged.time, **event.model_dump(mode="json")}
        self._write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
        self._seq = logged.seq
        return logged

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        with disk_errors(self.path), self._file:
            os.fsync(self._file.fileno())

    def _write(self, line: bytes) -> None:
        """Write a whole line or nothing of it."""
        end = self._file.seek(0, os.SEEK_END)
        with disk_errors(self.path):
            try:
                rest = line
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(end)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_events(path: Path) -> list[LoggedEvent]:
    """Return all complete events of a file; none when the file does not exist."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [_parse(path, number, line) for number, line in enumerate(lines[:-1], start=1) if line]


def follow_events(path: Path, done: Callable[[], bool], interval: float = 0.1) -> Iterator[LoggedEvent]:
    """Yield the events of a file as they come, from its beginning, until ``done()`` and the end of the file.

    Args:
        path: the event file; it may not exist yet.
        done: says that no more events will be written.
        interval: seconds between two looks at the file.
    """
    position, number, rest = 0, 0, b""
    while True:
        last = done()
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                chunk = file.read()
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number += 1
                if line:
                    yield _parse(path, number, line)
        if last:
            return
        time.sleep(interval)


def _parse(path: Path, number: int, line: bytes) -> LoggedEvent:
    try:
        value: dict[str, Any] = TypeAdapter(dict[str, Any]).validate_json(line)
        return LoggedEvent(
            seq=value.pop("seq", None), time=value.pop("time", None), event=_ADAPTER.validate_python(value)
        )
    except ValidationError as error:
        raise MachineError("ground.file_damaged", f"{path}:{number}", reason=why_invalid(error)) from error


def _repair(path: Path) -> int:
    """Cut a half-written last line off and return the last number."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    lines = whole.splitlines()
    return _parse(path, len(lines), lines[-1]).seq if lines else 0

"""Runs that are followed by trackers: how they are made, and what a tracker should have been told."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.events import Event, Started, Step, Warned
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened, Note
from danlu.jobs.runs import RunFolder
from danlu.jobs.trackers.figures import figures_of
from tests.jobs.homes import never, quiet, recipe

SECRET = "The oven opens with sesame."


def prepared_run(home, material, *words: str):
    return preparing.prepare(home, recipe(*material, f"system={SECRET}", *words), quiet, predict_cost=False)


def last_events(run: RunFolder) -> list[Event]:
    """Return the events of a run as they count: steps that were done again only the second time."""
    kept: list[Event] = []
    for logged in run.events():
        if isinstance(logged.event, Started):
            start = logged.event.from_step
            kept = [event for event in kept if getattr(event, "step", 0) <= start] if start else []
        kept.append(logged.event)
    return kept


def first_events(run: RunFolder) -> list[Event]:
    """Return the events of a run as they were first told: steps that were done again only the first time."""
    told: dict[tuple[str, int], Event] = {}
    for logged in run.events():
        told.setdefault((logged.event.type, getattr(logged.event, "step", -1)), logged.event)
    return list(told.values())


def figures(events: list[Event]) -> dict[str, list[tuple[int, float]]]:
    """Return what a tracker should show: by name, the steps and their values."""
    shown: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        found = figures_of(event)
        for name, value in found[1].items() if found else ():
            shown.setdefault(name, []).append((found[0], pytest.approx(value, rel=1e-6)))
    return shown


def interrupt_after_checkpoint(prepared) -> str:
    """Train to step 5 and take the checkpoint of that step away: resumed, the run does step 5 again."""
    report = pipeline.train(prepared, stop_after(prepared.run, 5), never)
    (prepared.run.path / "checkpoints" / "step-000005").rename(prepared.run.path / "gone")
    return report.status


def stop_after(run: RunFolder, step: int):
    """Return a receiver of messages that asks the run to stop after a step."""

    def stop(message) -> None:
        if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == step:
            run.stop_file.touch()

    return stop


def warnings(run: RunFolder) -> list[Warned]:
    found = [logged.event for logged in run.events() if isinstance(logged.event, Warned)]
    return [event for event in found if event.code == "jobs.tracker_failed"]


def told_where(messages: list) -> str:
    [note] = [item.text for item in messages if isinstance(item, Note)]
    return note


def level_db(path: Path, head: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, as wandb and SwanLab write it."""
    content = path.read_bytes()
    assert content[:4] == head
    position, parts = 7, b""
    while position < len(content):
        if 32768 - position % 32768 < 7:  # too little is left of the block for a record
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        position += 7
        parts += content[position : position + length]
        position += length
        if kind in {1, 4}:  # whole, or the last part
            yield parts
            parts = b""


def swanlab_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    shown: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("run-*/run-*.swanlab")):
        for content in level_db(path, b":SWL"):
            record = Record.FromString(content)
            if record.HasField("scalar"):
                shown.setdefault(record.scalar.key, []).append((record.scalar.step, record.scalar.value.number))
    return shown

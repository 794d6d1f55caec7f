"""Small runs of the loop by several processes, for tests.

    python -m tests.training.together STORE RANK SIZE CASE.json

One process of the case: a run of ``tests.training.fitting`` in a layout; the first prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import torch
from pydantic import BaseModel

from danlu.errors import DanluError
from danlu.events import Event, Step, Stopped
from danlu.training.loop import Job, fit
from danlu.training.objectives import objective_of
from danlu.training.ranks.group import Strategy, joined, layout
from danlu.training.settings import TrainSettings
from danlu.training.trained import attach
from tests.tiny import tiny_model
from tests.training.fitting import examples


class Case(BaseModel):
    """What the processes of a run are told."""

    folder: Path
    settings: TrainSettings
    strategy: Strategy
    offload: bool = False
    family: str = "llama"
    rows: int = 10
    stop_after: int | None = None
    resume: bool = False


def run_together(case: Case, size: int = 2) -> dict[str, object]:
    """Run a case in so many processes and return what the first of them said."""
    case.folder.mkdir(parents=True, exist_ok=True)
    told = case.folder / f"case-{uuid.uuid4().hex}.json"
    told.write_text(case.model_dump_json(), encoding="utf-8")
    store = told.with_suffix(".store")
    command = [sys.executable, "-m", "tests.training.together", str(store)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [*command, str(rank), str(size), str(told)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        ended = [child.communicate(timeout=150) for child in children]
    finally:
        for child in children:
            child.kill()
    for child, (_, errors) in zip(children, ended, strict=True):
        assert child.returncode == 0, errors
    said: dict[str, object] = json.loads(ended[0][0].splitlines()[-1])
    return said


def main(store: str, rank: str, size: str, told: str) -> None:
    """Be one process of a case."""
    case = Case.model_validate_json(Path(told).read_bytes())
    events: list[Event] = []

    def stop() -> bool:
        return any(isinstance(event, Step) and event.step == case.stop_after for event in events)

    with joined(int(rank), int(size), Path(store)) as device:
        ranks = layout(case.strategy, device, offload=case.offload)
        model = attach(tiny_model(case.family), case.settings)
        job = Job(examples(case.rows), examples(4, seed=9), case.folder, "tiny", objective=objective_of(case.settings))
        said: dict[str, object] = {}
        try:
            fit(model, job, case.settings, events.append, stop, resume=case.resume, ranks=ranks)
        except DanluError as error:
            said["error"] = error.key
    steps = [event for event in events if isinstance(event, Step)]
    said |= {
        "losses": [event.loss for event in steps], "norms": [event.grad_norm for event in steps],
        "stopped": any(isinstance(event, Stopped) for event in events), "threads": torch.get_num_threads(),
    }  # fmt: skip
    if rank == "0":
        print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])

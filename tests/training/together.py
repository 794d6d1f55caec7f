"""Small runs of the loop by several processes, for tests.

    python -m tests.training.together STORE RANK SIZE CASES.json

One process of all the cases, one after the other; the first prints what happened in each as a line of JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, TypeAdapter

from danlu.data.examples import Example
from danlu.errors import DanluError
from danlu.events import Eval, Event, Step, Stopped, Warned
from danlu.training.loop import Job, fit
from danlu.training.objectives import Objective
from danlu.training.plugged import objective_named
from danlu.training.preferences import Reference
from danlu.training.ranks.group import Strategy, joined, layout
from danlu.training.settings import TrainSettings
from danlu.training.trained import attach
from tests.tiny import tiny_model
from tests.training.fitting import examples
from tests.training.test_preferences import judged_examples


class Case(BaseModel):
    """A run.

    Attributes:
        name: name of the case, and of its folder unless it goes on with that of another.
        settings: its settings.
        strategy: how the weights lie among the processes.
        family: of the model.
        tied: whether the model's head shares its embedding.
        stop_after: stop after this step.
        resume: the case whose run it goes on with.
        breaks: in the second process, memory runs out in the last piece of each step that is not the only example.
    """

    name: str
    settings: TrainSettings
    strategy: Strategy = "ddp"
    family: str = "llama"
    tied: bool = True
    stop_after: int | None = None
    resume: str | None = None
    breaks: bool = False

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.resume or self.name


_CASES = TypeAdapter(list[Case])


class Told(BaseModel):
    """What the first process saw of a case."""

    name: str
    losses: list[float] = []
    norms: list[float] = []
    preferred: list[float | None] = []
    warnings: list[str] = []
    measured: list[int] = []
    stopped: bool = False
    error: str | None = None


def run_together(folder: Path, cases: Sequence[Case], size: int = 2) -> dict[str, Told]:
    """Run cases in so many processes, each in a folder of its own, and return what the first of them saw."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "cases.json"
    told.write_bytes(_CASES.dump_json([*cases]))
    words = [str(folder / "store"), str(size), str(told)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.together", str(rank), *words],
            stdout=subprocess.PIPE, stderr=(folder / f"errors-{rank}").open("w"), text=True, env=environment,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        ended = [child.communicate(timeout=240)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    for rank, child in enumerate(children):
        assert child.returncode == 0, (folder / f"errors-{rank}").read_text()
    found = [Told.model_validate_json(line) for line in ended[0].splitlines() if line.startswith("{")]
    return {item.name: item for item in found}


def job_of(case: Case, folder: Path) -> Job:
    """Return what a case learns: judged answers where its settings speak of them."""
    judged = case.settings.preference
    learned, heldout = (examples(), examples(4, seed=9)) if judged is None else (judged_examples(8), judged_examples(2))
    objective = objective_named(
        "sft" if judged is None else judged.objective, case.settings, Reference.unmeasured([*learned, *heldout])
    )
    return Job(learned, heldout, folder / case.folder, "tiny", objective=objective)


class Greedy:
    """An objective for which memory runs out wherever more than one example is computed at once."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.heldout_loss = objective.heldout_loss
        self.pieces = objective.pieces

    def loss(self, losses, piece, given: Sequence[Example]) -> torch.Tensor:
        """Return what a piece adds."""
        if len(piece.examples) > 1:
            torch.empty(1 << 60)  # a real allocation that really fails
        return self._objective.loss(losses, piece, given)


def fit_case(case: Case, folder: Path, ranks=None) -> Told:
    """Run a case in this process, alone or as one of several."""
    events: list[Event] = []
    job = job_of(case, folder)
    if case.breaks and ranks is not None and ranks.rank == 1:
        job = Job(job.examples, job.heldout, job.folder, "tiny", objective=Greedy(job.objective))
    told = Told(name=case.name)

    def stop() -> bool:
        return any(isinstance(event, Step) and event.step == case.stop_after for event in events)

    model = attach(tiny_model(case.family, tied=case.tied), case.settings)
    try:
        fit(model, job, case.settings, events.append, stop, resume=case.resume is not None, ranks=ranks)
    except DanluError as error:
        told.error = error.key
    steps = [event for event in events if isinstance(event, Step)]
    told.losses, told.norms = [event.loss for event in steps], [event.grad_norm for event in steps]
    told.preferred = [event.preferred for event in steps]
    told.warnings = [event.code for event in events if isinstance(event, Warned)]
    told.measured = [event.step for event in events if isinstance(event, Eval)]
    told.stopped = any(isinstance(event, Stopped) for event in events)
    return told


def main(rank: str, store: str, size: str, cases: str) -> None:
    """Be one process of all the cases."""
    with joined(int(rank), int(size), Path(store)) as device:
        for case in _CASES.validate_json(Path(cases).read_bytes()):
            ranks = layout(case.strategy, device, offload=False)
            told = fit_case(case, Path(cases).parent, ranks)
            if rank == "0":
                print(told.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

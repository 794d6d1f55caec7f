"""A small run of the loop for tests, in this process or, as a script, in one that can be killed.

    python -m tests.training.fitting FOLDER wait|half STEP [--resume]

prints the number of each step. ``wait`` sleeps for ever after step STEP; ``half`` writes half of the checkpoint of
that step and kills itself.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from danlu.data.examples import Example
from danlu.events import Event, Step
from danlu.training import checkpoint
from danlu.training.loop import FitResult, Job, fit
from danlu.training.settings import LoraSettings, TrainSettings
from danlu.training.tensors import Stored, save_tensors
from danlu.training.trained import attach, finished_folder
from tests.tiny import tiny_model

LORA = LoraSettings(r=4, lora_alpha=8)


def settings(**changes: object) -> TrainSettings:
    """Eight short steps; change what a test is about."""
    values = {
        "learning_rate": 5e-3, "steps": 8, "batch_size": 4, "lora": LORA, "token_budget": 200, "warmup_steps": 2,
        "eval_every": 4, "checkpoint_every": 2,
    }  # fmt: skip
    return TrainSettings.model_validate({**values, **changes})


def examples(count: int = 10, seed: int = 0) -> list[Example]:
    """Sequences of random ids with a common beginning; the second half of each is learned."""
    rng = random.Random(seed)
    made = []
    for row in range(count):
        question = [rng.randrange(3, 380) for _ in range(rng.randint(2, 12))]
        answer = [rng.randrange(3, 380) for _ in range(rng.randint(1, 12))]
        ids = (5, 6, 7, 8, *question, *answer)
        made.append(Example(ids, (False,) * (4 + len(question)) + (True,) * len(answer), row))
    return made


def run(
    folder: Path,
    chosen: TrainSettings | None = None,
    *,
    emit: Callable[[Event], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    resume: bool = False,
    learned: list[Example] | None = None,
    heldout: list[Example] | None = None,
    family: str = "llama",
) -> tuple[FitResult, torch.nn.Module]:
    """Train a fresh tiny model; return the result and the model."""
    chosen = chosen or settings()
    model = attach(tiny_model(family), chosen)
    kept = examples(4, seed=9) if heldout is None else heldout
    job = Job(examples() if learned is None else learned, kept, folder, "tiny")
    return fit(model, job, chosen, emit, stop, resume=resume), model


def weights(folder: Path, method: str = "lora") -> dict[str, torch.Tensor]:
    """Return what a run left: its adapter, or the weights that it changed."""
    (path,) = (folder / finished_folder(method)).glob("*.safetensors")
    return load_file(path)


def assert_bit_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Compare tensors by name, bit by bit."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def _main(folder: str, way: str, last: str, *rest: str) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, Step):
            print(event.step, flush=True)
            if way == "wait" and event.step == int(last):
                time.sleep(600)

    if way == "half":
        saved = 0

        def half(tensors: dict[str, Stored], path: Path) -> None:
            nonlocal saved
            saved += 1
            save_tensors(tensors, path)
            if saved == int(last) // 2:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save_tensors = half
    run(Path(folder), emit=emit, resume="--resume" in rest)


if __name__ == "__main__":
    _main(*sys.argv[1:])

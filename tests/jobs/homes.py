"""A home, a tiny model and a small file for tests of runs and commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from danlu.events import Started, Step
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Happened, Told
from danlu.jobs.preparing import Prepared
from danlu.jobs.runs import RunFolder, TrainReport
from danlu.recipe import Recipe
from danlu.recipe_file import load_recipe
from danlu.settings import Home
from tests.data.files import question_rows, write_json_rows
from tests.tiny import write_tiny_model


def write_material(folder: Path, rows: int = 12) -> tuple[Path, Path]:
    """Write a tiny model and a file of rows; return both paths."""
    return write_tiny_model(folder / "tiny"), write_json_rows(folder / "numbers.json", question_rows(rows))


def words(model: Path, data: Path, *more: str) -> list[str]:
    """Return the words of a run of two passes, six steps, over nine rows with three kept aside."""
    return [
        f"model={model}", f"data.train={data}", "data.holdout=0.25", "train.num_train_epochs=2", "train.batch_size=3",
        "train.dtype=float32", "eval.every=3", *more,
    ]  # fmt: skip


def recipe(model: Path, data: Path, *more: str) -> Recipe:
    """Return the same as a recipe."""
    return load_recipe(None, words(model, data, *more))


def stopped_and_resumed(
    home: Home, wanted: Recipe, after: int, between: Callable[[], None] = lambda: None
) -> tuple[Prepared, TrainReport]:
    """Train a run to a step, stop it, open it again and train it to its end.

    Args:
        home: the home.
        wanted: the recipe.
        after: the step after which it is stopped.
        between: what happens while it is stopped.
    """
    parts = preparing.prepare(home, wanted, quiet, predict_cost=False)

    def stop(message: Told) -> None:
        if isinstance(message, Happened) and isinstance(message.event, Step) and message.event.step == after:
            parts.run.stop_file.touch()

    assert pipeline.train(parts, stop, never).status == "stopped"
    between()
    again = preparing.reopen(home, parts.run.name, quiet)
    report = pipeline.train(again, quiet, never, resume=True)
    assert report.status == "finished"
    starts = [item.event.from_step for item in again.run.events() if isinstance(item.event, Started)]
    assert starts == [0, after]
    return again, report


def assert_same_bits(one: RunFolder, other: RunFolder) -> None:
    """Check that two runs have trained the very same weights."""
    left, right = (load_file(next(run.trained.glob("*.safetensors"))) for run in (one, other))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def quiet(_message: object) -> None:
    """Tell nobody."""


def never() -> bool:
    """Stop for nobody."""
    return False

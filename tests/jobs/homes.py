"""A home, a tiny model and a small file for tests of runs and commands."""

from __future__ import annotations

from pathlib import Path

from danlu.recipe import Recipe
from danlu.recipe_file import load_recipe
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


def quiet(_message: object) -> None:
    """Tell nobody."""


def never() -> bool:
    """Stop for nobody."""
    return False

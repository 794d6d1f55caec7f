"""A folder and files as LLaMA-Factory's, for tests of what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from danlu.errors import RecipeError
from danlu.recipe import Recipe
from danlu.recipe_file import load_recipe, read_recipe

INFO: dict[str, Any] = {
    "identity": {"file_name": "identity.json"},
    "named": {
        "file_name": "identity.json",
        "formatting": "alpaca",
        "split": "train",
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "tools": None},
    },
    "texts": {"file_name": "identity.json", "columns": {"prompt": "text"}},
    "talks": {"file_name": "identity.json", "formatting": "sharegpt"},
    "pairs": {"file_name": "identity.json", "ranking": True},
    "judged": {
        "file_name": "identity.json",
        "ranking": True,
        "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    },
    "tagged": {
        "file_name": "identity.json",
        "columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"},
    },
    "hub": {"hf_hub_url": "someone/rows"},
    "cloud": {"cloud_file_name": "s3://bucket/rows.json"},
    "script": {"script_url": "rows.py"},
    "sampled": {"file_name": "identity.json", "num_samples": 0},
    "validation": {"file_name": "identity.json", "split": "test"},
    "shaped": {"file_name": "identity.json", "formatting": "csv"},
    "pictures": {"file_name": "identity.json", "formatting": "sharegpt", "columns": {"images": "images"}},
    "misspelt": {"file_nam": "identity.json"},
    "tagless": {"file_name": "identity.json", "formatting": "sharegpt", "tags": {"rol_tag": "role"}},
    "odd column": {"file_name": "identity.json", "columns": {"prompts": "x", "response": "output"}},
    "gone": {"file_name": "gone.json"},
    "nameless": {"formatting": "alpaca"},
    "odd": "identity.json",
}


LEAST: dict[str, object] = {"model_name_or_path": "m", "stage": "sft", "dataset": "identity"}


def write(values: dict[str, object] | str) -> Path:
    path = Path("lf.yaml")
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return path


def recipe(words: tuple[str, ...] = (), /, **keys: object) -> Recipe:
    return load_recipe(write(LEAST | keys), words)


def got(field: str, /, **keys: object) -> object:
    value: object = recipe(**keys)
    for name in field.split("."):
        value = getattr(value, name)
    return value


def told(key: str, /, **keys: object) -> tuple[str | None, object, str]:
    """Return what is told of a key: the field, what it became, and the sentence."""
    items = [item for item in read_recipe(write(LEAST | keys)).translations if item.key == key]
    return items[-1].field, items[-1].became, items[-1].because("en")


def refused(words: tuple[str, ...] = (), /, **keys: object) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(words, **keys)
    assert "\n" not in caught.value.message()
    return caught.value.message("en")

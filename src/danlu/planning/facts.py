"""What the rules look at: the model, the data and the machine, as plain numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from danlu.data.encode import TokenCounts
from danlu.errors import ModelError


@dataclass(frozen=True)
class ModelFacts:
    """A base model in numbers.

    Attributes:
        name: name in the library.
        family: transformers' ``model_type``.
        hidden: width.
        layers: number of layers.
        context: longest sequence it was made for, in tokens.
        weights_bytes: size of its weight files.
    """

    name: str
    family: str
    hidden: int
    layers: int
    context: int
    weights_bytes: int


@dataclass(frozen=True)
class DataFacts:
    """The examples in numbers.

    Attributes:
        rows: rows in all.
        train: examples that are learned.
        holdout: examples that are measured on.
        tokens: lengths of the learned examples.
    """

    rows: int
    train: int
    holdout: int
    tokens: TokenCounts


def model_facts(name: str, folder: Path) -> ModelFacts:
    """Read a model folder's configuration.

    Raises:
        ModelError: the configuration lacks what the rules need.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    try:
        return ModelFacts(
            name=name,
            family=str(config["model_type"]),
            hidden=int(text["hidden_size"]),
            layers=int(text["num_hidden_layers"]),
            context=int(text["max_position_embeddings"]),
            weights_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        )
    except KeyError as error:
        raise ModelError("planning.config_incomplete", str(folder / "config.json"), field=error.args[0]) from error

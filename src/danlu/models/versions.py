"""Model versions as folders: what a run left behind, with its lineage and its exports.

A version folder holds ``version.json``, the tokenizer exactly as trained with, and exports. The file is the truth;
the database only points at it. Not for base models (``library``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from danlu.errors import ModelError, NotFoundError
from danlu.files import why_invalid, write_text

_FILE = "version.json"
Thinking = Literal["auto", "off"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelRef(_Part):
    """The base model that a version was trained from."""

    name: str
    source: str | None = None
    revision: str | None = None
    fingerprint: str | None = None


class ContinuedFrom(_Part):
    """The adapter that a run went on from."""

    kind: Literal["run", "version", "folder"]
    name: str
    sha256: str = Field(description="of its weights")


class DatasetRef(_Part):
    """One data set that a version was trained on."""

    name: str
    version: str
    sha256: str


class GenerationDefaults(_Part):
    """How the version answers unless a caller says otherwise."""

    temperature: float = 0.3
    top_p: float = 0.9
    repetition_penalty: float = 1.05
    max_tokens: int = 512


class Agreement(_Part):
    """How far an export agrees with its source (see ``danlu.export.agreement``)."""

    token_ids: float = Field(description="share of corpus texts whose token ids are equal")
    top1: float = Field(description="share of positions with the same most likely next token")
    kl: float = Field(description="mean KL divergence in nats a position, source against export")
    greedy: float = Field(description="share of prompts whose greedy answer is the same text")


class Export(_Part):
    """Weights of a version in one format."""

    format: Literal["gguf", "merged", "adapter"]
    quant: str | None = None
    path: str = Field(description="relative to the version's folder")
    bytes: int
    sha256: str | None = None
    agreement: Agreement | None = None


class ProofSummary(_Part):
    """The figures of the proof."""

    heldout_loss_before: float | None = None
    heldout_loss_after: float | None = None
    probes_n: int = 0
    pass_before: int = 0
    pass_after: int = 0


class ModelVersion(_Part):
    """The manifest of a version."""

    format: Literal[1] = 1
    id: str
    name: str
    created_at: str
    run: str | None = None
    base: BaseModelRef
    datasets: tuple[DatasetRef, ...] = ()
    system: str = ""
    thinking: Thinking = "auto"
    max_context: int = 2048
    tokenizer: str = "tokenizer"
    generation: GenerationDefaults = GenerationDefaults()
    exports: tuple[Export, ...] = ()
    proof: ProofSummary | None = None
    continued_from: ContinuedFrom | None = None
    new_tokens: tuple[str, ...] = ()

    def export(self, kind: str) -> Export | None:
        """Return the export of a format, or None."""
        return next((item for item in self.exports if item.format == kind), None)


def save_version(folder: Path, version: ModelVersion) -> None:
    """Write the manifest of a version into its folder, atomically."""
    write_text(folder / _FILE, version.model_dump_json(indent=2) + "\n")


def load_version(folder: Path) -> ModelVersion:
    """Read the manifest of the version in ``folder``.

    Raises:
        NotFoundError: no version there.
        ModelError: the manifest is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        raise NotFoundError("models.version_missing", str(folder), name=folder.name)
    try:
        return ModelVersion.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError("models.version_damaged", str(path), reason=why_invalid(error)) from error


def list_versions(versions: Path) -> list[ModelVersion]:
    """Return all versions under the folder ``versions``, newest first."""
    found = [load_version(path.parent) for path in versions.glob(f"*/{_FILE}") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda version: (version.created_at, version.id), reverse=True)

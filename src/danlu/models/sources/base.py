"""What a source of base models must be able to do, and how it tells of its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, Literal, Protocol

from danlu.models.catalogue import CatalogueEntry

Stage = Literal["ask", "download", "convert", "check", "store"]
SourceName = Literal["hf", "modelscope", "pypi"]

# Never weights as pickles, never Python files.
ALLOWED_PATTERNS: Final = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "LICENSE*",
)
# Weights in other layouts of the same repository (consolidated shards of Llama, ONNX, adapters).
IGNORED_PATTERNS: Final = ("original/*", "onnx/*", "*/*", "consolidated*.safetensors")


def is_wanted(name: str) -> bool:
    """Whether a file of a repository (path with slashes) is part of a model as Danlu keeps it."""
    if any(fnmatch(name, pattern) for pattern in IGNORED_PATTERNS):
        return False
    return any(fnmatch(name, pattern) for pattern in ALLOWED_PATTERNS)


@dataclass(frozen=True)
class Progress:
    """How far a pull has come.

    Attributes:
        stage: what is being done.
        source: from where.
        done: bytes done.
        total: bytes in all, 0 when not known.
        note: a sentence for people, already in their language; empty when there is nothing to say.
    """

    stage: Stage
    source: str
    done: int = 0
    total: int = 0
    note: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Origin:
    """Where a fetched model came from.

    Attributes:
        source: ``hf:OWNER/NAME``, ``modelscope:OWNER/NAME`` or ``pypi:PACKAGE``.
        revision: commit or version.
        sha256: hashes that are known already, by file name.
    """

    source: str
    revision: str | None
    sha256: Mapping[str, str] = field(default_factory=dict)


class SourceUnavailable(Exception):  # noqa: N818 - not an error by itself: the next source is asked
    """A source did not answer in time, or does not have the model; the text says which, for people."""


class Source(Protocol):
    """A place that base models come from."""

    name: SourceName

    def offers(self, entry: CatalogueEntry) -> bool:
        """Whether the catalogue knows the model's id there."""

    def ask(self, entry: CatalogueEntry, timeout: float) -> None:
        """Find out, within ``timeout`` seconds, whether the source answers and has the model.

        Raises:
            SourceUnavailable: it does not.
        """

    def fetch(self, entry: CatalogueEntry, folder: Path, cache: Path, report: Report) -> Origin:
        """Put the files of a model into an empty folder.

        Args:
            entry: the model.
            folder: where to; what is in it after an error does not matter.
            cache: Danlu's cache folder, for what a later call can go on from.
            report: told how far it has come.

        Raises:
            DownloadError: the download failed; calling again goes on where it ended.
            MachineError: not enough room on the disk.
        """

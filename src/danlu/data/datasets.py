"""Data sets: named, versioned, immutable. A version is its rows and the hash of them.

``DANLU_HOME/datasets/NAME/VERSION/`` holds ``rows.jsonl`` and ``dataset.json``; VERSION begins with the content
hash, so the same rows are the same version. Where a data set is named, a file may stand instead.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from danlu.data.conversations import FORMATS, Conversation, recognise
from danlu.data.documents import Document, TextFormat
from danlu.data.preferences import LabelFormat, PairFormat, Preference, judged_format
from danlu.data.questions import Question, QuestionFormat, hold_questions
from danlu.data.rows import Row, read_rows
from danlu.errors import DataError, NotFoundError, UsageError
from danlu.files import new_folder, read_as, write_text

# Letters of any script: a file named with them is registered under its own name.
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")

Kind = Literal["conversations", "texts", "preferences", "labels", "questions"]
_KINDS: Final[dict[str, Kind]] = {
    TextFormat.name: "texts", PairFormat.name: "preferences", LabelFormat.name: "labels",
    QuestionFormat.name: "questions",
}  # fmt: skip
_FITTING: Final[dict[str, tuple[Kind, ...]]] = {
    "dpo": ("preferences",), "orpo": ("preferences",), "kto": ("preferences", "labels"),
}  # fmt: skip


class DatasetManifest(BaseModel):
    """``dataset.json`` of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    name: str
    version: str
    sha256: str
    row_format: str
    rows: int
    source: str
    created_at: str

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return _KINDS.get(self.row_format, "conversations")


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
    conversations: tuple[Conversation, ...] = ()
    documents: tuple[Document, ...] = ()
    preferences: tuple[Preference, ...] = ()
    questions: tuple[Question, ...] = ()
    left_out: tuple[Conversation, ...] = ()

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        if self.preferences:
            return "preferences" if self.preferences[0].paired else "labels"
        if self.questions:
            return "questions"
        return "texts" if self.documents else "conversations"


def read_dataset(path: Path) -> Dataset:
    """Read a file as a data set without registering it.

    Raises:
        DataError: the file or one of its rows cannot be used; the message names file, row, field and remedy.
    """
    rows = read_rows(path)
    return _dataset(path.name, "", _hash(rows), rows)


class DatasetLibrary:
    """The registered data sets under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path, name: str) -> DatasetManifest:
        """Register a file as the newest version of ``name``; the same rows again change nothing.

        Raises:
            UsageError: the name cannot be a folder's name.
            DataError: the file cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("data.bad_name", name=name)
        rows = read_rows(path)
        digest = _hash(rows)
        _dataset(path.name, "", digest, rows)
        row_format = _format_name(path, rows)
        for version in self.versions(name):
            if version.sha256 == digest:
                return version
        now = datetime.now(UTC)
        manifest = DatasetManifest(
            name=name,
            version=f"{now:%Y%m%d-%H%M%S}-{digest[:8]}",
            sha256=digest,
            row_format=row_format,
            rows=len(rows),
            source=path.name,
            created_at=now.isoformat(),
        )
        with new_folder(self.folder / name / manifest.version) as partial:
            write_text(partial / "rows.jsonl", "".join(_line(row) + "\n" for row in rows))
            write_text(partial / "dataset.json", manifest.model_dump_json(indent=2) + "\n")
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

    def remove(self, name: str) -> None:
        """Delete all versions of a data set.

        Raises:
            NotFoundError: there is none of this name.
        """
        if not self.versions(name):
            raise self._not_found(name)
        shutil.rmtree(self.folder / name)

    def register(self, name_or_file: str) -> DatasetManifest:
        """Return the newest version of a data set, or register a file under its own name first.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        versions = self.versions(name_or_file)
        if versions:
            return versions[0]
        path = Path(name_or_file)
        if path.exists() or path.suffix:
            name = re.sub(r"[^\w.-]+", "-", path.stem).strip("-._") or "data"
            return self.add(path, name[:64])
        raise self._not_found(name_or_file)

    def open_version(self, name: str, version: str) -> Dataset:
        """Read one version of a registered data set.

        Raises:
            NotFoundError: the version is no longer there.
        """
        found = next((item for item in self.versions(name) if item.version == version), None)
        if found is None:
            raise self._not_found(f"{name} ({version})")
        return _dataset(name, version, found.sha256, read_rows(self.folder / name / version / "rows.jsonl"))

    def open(self, name_or_file: str) -> Dataset:
        """Read a registered data set (its newest version) or a file.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        versions = self.versions(name_or_file)
        if versions:
            return self.open_version(versions[0].name, versions[0].version)
        return read_dataset(self.file_of(name_or_file))

    def open_questions(self, name_or_file: str) -> tuple[Question, ...]:
        """Read a registered data set (its newest version) or a file that holds nothing but questions.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used, or holds something else.
        """
        found = self.open(name_or_file)
        if found.kind != "questions":
            raise DataError("data.no_questions", found.name)
        return found.questions

    def file_of(self, name_or_file: str) -> Path:
        """Return the file with the rows of a registered data set (its newest version), or the file that is named.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
        """
        versions = self.versions(name_or_file)
        if versions:
            return self.folder / name_or_file / versions[0].version / "rows.jsonl"
        path = Path(name_or_file)
        if path.exists() or path.suffix:
            return path
        raise self._not_found(name_or_file)

    def _not_found(self, name: str) -> NotFoundError:
        known = ", ".join(item.name for item in self.list()) or "–"
        return NotFoundError("data.unknown_dataset", name=name, known=known)


def hold_texts(rows: Sequence[Row]) -> bool:
    """Say whether rows are texts; a row that looks like a conversation is one, whatever else it holds."""
    if judged_format(rows) is not None:
        return False
    return TextFormat().matches(rows[0]) and not any(candidate.matches(rows[0]) for candidate in FORMATS)


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


def _format_name(path: Path, rows: list[Row]) -> str:
    judged = judged_format(rows)
    if judged is not None:
        return judged.name
    if hold_questions(rows):
        return QuestionFormat.name
    return TextFormat.name if hold_texts(rows) else recognise(path, rows).name


def _dataset(name: str, version: str, sha256: str, rows: list[Row]) -> Dataset:
    judged = judged_format(rows)
    if judged is not None:
        return Dataset(name, version, sha256, preferences=tuple(judged.convert(name, row) for row in rows))
    if hold_questions(rows):
        asked = QuestionFormat()
        return Dataset(name, version, sha256, questions=tuple(asked.convert(name, row) for row in rows))
    if hold_texts(rows):
        texts = TextFormat()
        return Dataset(name, version, sha256, documents=tuple(texts.convert(name, row) for row in rows))
    row_format = recognise(name, rows)
    read = [row_format.convert(name, row) for row in rows]
    learned = tuple(item for item in read if item.accepted)
    return Dataset(name, version, sha256, learned, left_out=tuple(item for item in read if not item.accepted))


def _hash(rows: list[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_line(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _line(row: Row) -> str:
    return json.dumps(row.values, ensure_ascii=False)

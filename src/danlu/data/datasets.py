"""Data sets: named, versioned, immutable. A version is its rows and the hash of them.

``DANLU_HOME/datasets/NAME/VERSION/`` holds ``rows.jsonl`` and ``dataset.json``; VERSION begins with the content
hash, so the same rows are the same version. Where a data set is named, a file may stand instead.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.formats import AnyFormat, format_named, recognise, require_family
from danlu.data.formats.base import Kind
from danlu.data.placeholders import Placeholders
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.reading import MEANINGS, NEEDED, Reading, Tags
from danlu.data.rows import Progress, Row, RowStream, place, stream_rows
from danlu.data.sources.hub import hub_name
from danlu.data.stored import Converted, RowFile, write_rows
from danlu.errors import DataError, NotFoundError, RecipeError, UsageError
from danlu.files import new_folder, read_as, write_text
from danlu.llamafactory import dataset_info

# Letters of any script: a file named with them is registered under its own name.
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")

_ROWS: Final = "rows.jsonl"
_LOOKED_AT: Final = 50
_NAMED: Final = 8
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
    reading: Reading | None = None
    left_out: int | None = None

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return format_named(self.row_format).kind


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


@dataclass(frozen=True)
class Source:
    """Rows outside of the library.

    Attributes:
        path: the file.
        reading: how it is read.
        name: what it is called.
    """

    path: Path
    reading: Reading
    name: str

    @classmethod
    def of(cls, named: str, reading: Reading | None = None) -> Source | None:
        """Return what a name on a command line or in a recipe points to; None where it can be no file.

        Args:
            named: a file, ``path/dataset_info.json#name``, or a data set of a hub (``hf:OWNER/NAME``).
            reading: how it is read, beside what the list says.

        Raises:
            RecipeError: the list has no such data set, or it is not one of texts.
        """
        reading = reading or Reading()
        path, mark, name = named.rpartition("#")
        if mark and path.endswith(".json"):
            entry = dataset_info.entry_of(Path(path), dataset_info.read_list(Path(path)), name)
            tags = Tags.model_validate(entry.tags) if "messages" in entry.columns else None
            listed = reading.model_copy(
                update={
                    "columns": entry.columns | reading.columns,
                    "tags": reading.tags or tags,
                    "samples": reading.samples or entry.samples,
                }
            )
            return cls(entry.path or Path(str(entry.hub)), listed, name)
        found = Path(named)
        hub = hub_name(named)
        if hub is not None:
            return cls(found, reading, hub.name.rpartition("/")[2])
        if found.name == dataset_info.NAME and found.is_file():
            names = ", ".join(list(dataset_info.read_list(found))[:_NAMED]) or "–"
            raise RecipeError("llamafactory.dataset_unnamed", named, path=named, known=names)
        return cls(found, reading, found.stem) if found.exists() or found.suffix else None

    @classmethod
    def named(cls, named: str, reading: Reading | None = None) -> Source:
        """Return the rows of a file, or of ``path/dataset_info.json#name``.

        Raises:
            RecipeError: the list has no such data set, or it is not one of texts.
        """
        return cls.of(named, reading) or cls(Path(named), reading or Reading(), Path(named).stem)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows as they are to be read."""
        return self.stream()[1]

    def stream(self, progress: Progress | None = None) -> tuple[RowStream, Iterator[Row]]:
        """Go through the rows as they are to be read, and be told about the files that they come from.

        Args:
            progress: is told bytes done and in all; see ``stream_rows``.

        Returns:
            What is known of the files so far, and the rows.
        """
        stream = stream_rows(self.path, progress)
        return stream, self.reading.apply(stream)

    def family(self) -> AnyFormat:
        """Return the family that the rows are in.

        Raises:
            DataError: the file cannot be read, or no family fits.
        """
        self._require_columns()
        return recognise(self.path, self) if self.reading.format == "auto" else format_named(self.reading.format)

    def placeholders(self) -> Placeholders:
        """Return what looks for placeholders in these rows."""
        return Placeholders(self.reading.fill, none=self.reading.fill_none)

    def _require_columns(self) -> None:
        """Check that columns are there at all that are said to hold what is needed."""
        needed = {meaning: name for meaning, name in self.reading.columns.items() if MEANINGS[meaning] in NEEDED}
        if not needed:
            return
        first = list(islice(stream_rows(self.path), _LOOKED_AT))
        there = list(dict.fromkeys(name for row in first for name in row.values))
        for meaning, name in needed.items():
            if name not in there:
                found = ", ".join(there[:8]) or "–"
                where = place(self.path, first[0])
                raise DataError("formats.column_absent", where, column=name, meaning=meaning, found=found)


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

    def add_source(self, source: Source, name: str, progress: Progress | None = None) -> DatasetManifest:
        """Register rows as the newest version of ``name``; the same rows again change nothing.

        Args:
            source: the rows.
            name: the data set.
            progress: is told bytes done and in all; see ``stream_rows``.

        Raises:
            UsageError: the name cannot be a folder's name.
            DataError: the rows cannot be used, or hold placeholders that nobody has filled in.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("data.bad_name", name=name)
        family = source.family()
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=self.folder) as written:
            tried = _Tried(source, family, progress)
            write_rows(Path(written) / _ROWS, tried.lines())
            for version in self.versions(name):
                if version.sha256 == tried.sha256:
                    return version
            now = datetime.now(UTC)
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
            )
            with new_folder(self.folder / name / manifest.version) as new:
                (Path(written) / _ROWS).replace(new / _ROWS)
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

    def remove(self, name: str) -> None:
        """Delete all versions of a data set.

        Raises:
            NotFoundError: there is none of this name.
        """
        if not self.versions(name):
            raise self._not_found(name)
        shutil.rmtree(self.folder / name)

    def register(self, name_or_file: str, reading: Reading | None = None) -> DatasetManifest:
        """Return the newest version of a data set, or register a file under its own name first.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        versions = self.versions(name_or_file)
        if versions:
            return versions[0]
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
        """Read a registered data set (its newest version) or a file.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
            DataError: the file cannot be used.
        """
        versions = self.versions(name_or_file)
        if versions:
            return self.open_version(versions[0].name, versions[0].version)
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
        """Return the rows of a registered data set (its newest version), or of the file that is named.

        Raises:
            NotFoundError: neither a data set nor a file of this name.
        """
        versions = self.versions(name_or_file)
        if versions:
            file = self.folder / name_or_file / versions[0].version / _ROWS
            return Source(file, Reading(format=versions[0].row_format), name_or_file)
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


class _Tried:
    """Goes through rows once: each is converted, hashed, and given on as the line that is stored.

    Attributes:
        rows: rows gone through.
        left_out: answers of a model that are not accepted.
        sha256: hash of the lines.
    """

    def __init__(self, source: Source, family: AnyFormat, progress: Progress | None = None) -> None:
        self._progress = progress
        self.rows = 0
        self.left_out = 0
        self._source = source
        self._family = family
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the lines that were given on."""
        return self._digest.hexdigest()

    def items(self) -> Iterator[tuple[Row, Any]]:
        """Go through the rows and what they mean.

        Raises:
            DataError: a row cannot be used, or placeholders are left.
        """
        name = self._source.path.name
        left = self._source.placeholders()
        for row in self._source.stream(self._progress)[1]:
            require_family(name, row, self._family, named=self._source.reading.format != "auto")
            item = self._family.convert(name, row)
            left.look(row, item)
            self.rows += 1
            self.left_out += isinstance(item, Conversation) and not item.accepted
            self._digest.update(_line(row).encode("utf-8", "surrogatepass") + b"\n")
            yield row, item
        left.require_none(name)

    def lines(self) -> Iterator[str]:
        """Go through the rows as they are stored."""
        return (_line(row) for row, _ in self.items())


def _read_source(source: Source) -> Dataset:
    family = source.family()
    tried = _Tried(source, family)
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


def _line(row: Row) -> str:
    return json.dumps(row.values, ensure_ascii=False)

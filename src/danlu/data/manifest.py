"""What is written beside the rows of a version: its name and hash, and where it came from.

Every field that came later has a default, so that what older versions of Danlu wrote is read. Not for the rows
(``stored``), nor for how a version comes to be (``datasets``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from danlu.data.formats import format_named
from danlu.data.formats.base import Kind
from danlu.data.reading import Reading
from danlu.data.sources.facts import FileFacts
from danlu.data.sources.hub import hub_name
from danlu.errors import DataError
from danlu.files import sha256_of, why_invalid

REPAIRS_SUFFIX: Final = ".repairs.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadAs(_Record):
    """A kind of file that rows were read from, and its encoding as people write it (empty where it has none)."""

    kind: str
    encoding: str = ""


class RepairOrigin(_Record):
    """What ``danlu data repair`` did to the file that was registered.

    Attributes:
        source: name of the file that was repaired.
        sha256: hash of that file; None where it was a folder.
        read: rows that were read.
        written: rows that were written.
        repairs: how many rows each repair changed or left out.
        edited: the repaired copy was changed by somebody afterwards; None where that cannot be told.
    """

    source: str
    sha256: str | None = None
    read: int
    written: int
    repairs: dict[str, int] = {}
    edited: bool | None = None


class FeedbackOrigin(_Record):
    """Which conversations rows were made from.

    Attributes:
        assistant: the assistant that was talked with.
        conversations: how many conversations.
        corrected: answers that people had put right.
    """

    assistant: str
    conversations: int
    corrected: int = 0


class Origin(_Record):
    """Where a version came from.

    Attributes:
        file: name of the file or folder; None for a data set of a hub.
        sha256: hash of the file; of a folder, of the names and hashes of all files in it.
        bytes: how large it was, of a folder all files in it together.
        files: how many files rows were read from.
        read_as: what they were read as, each kind and encoding once.
        listed: entry of a ``dataset_info.json``, as ``dataset_info.json#name``.
        hub: data set of a hub, as it was named.
        parent: the version that was the newest before.
        repair: what was mended before.
        pseudo: rows whose answer a model wrote.
        feedback: the conversations that rows were made from.
    """

    file: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    files: int = 1
    read_as: tuple[ReadAs, ...] = ()
    listed: str | None = None
    hub: str | None = None
    parent: str | None = None
    repair: RepairOrigin | None = None
    pseudo: int = 0
    feedback: FeedbackOrigin | None = None


class DatasetManifest(_Record):
    """``dataset.json`` of a version.

    Attributes:
        left_out: answers of a model that were not accepted; they are among the rows.
        origin: where the rows came from; None in what older versions of Danlu wrote.
        unusable: how many rows of the file could not be used and are not among the rows, by the reason.
    """

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
    origin: Origin | None = None
    unusable: dict[str, int] | None = None

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return format_named(self.row_format).kind


class _RepairReport(BaseModel):
    """What ``danlu data repair`` writes beside a repaired copy."""

    model_config = ConfigDict(frozen=True)

    source: str
    sha256: str | None = None
    read: int
    written: int
    written_sha256: str | None = None
    repairs: dict[str, list[int]] = {}


def origin_of(
    path: Path, facts: FileFacts, *, listed: str | None = None, parent: str | None = None, pseudo: int = 0
) -> Origin:
    """Return where rows came from that have just been read.

    Args:
        path: the file or folder, or the name of a data set of a hub.
        facts: what was found out about the files on reading.
        listed: the entry of a list that named it.
        parent: the version that was the newest before.
        pseudo: rows whose answer a model wrote.

    Raises:
        DataError: the report of a repair lies beside the file and cannot be read.
    """
    read_as = tuple(ReadAs(kind=kind, encoding=encoding) for kind, encoding in facts.read_as)
    made: dict[str, Any] = {"files": len(facts.members) or 1, "read_as": read_as, "listed": listed, "parent": parent}
    hub = hub_name(path)
    if hub is not None:
        return Origin(hub=str(hub), pseudo=pseudo, **made)
    size, digest = _measured(path)
    repair = _repair_of(path, digest)
    return Origin(file=path.name, sha256=digest, bytes=size, repair=repair, pseudo=pseudo, **made)


def repair_report(path: Path) -> Path:
    """Return where the report of a repair lies beside a repaired copy."""
    return path.with_suffix(REPAIRS_SUFFIX)


def counted_repairs(repairs: Mapping[str, list[int]]) -> dict[str, int]:
    """Return how many rows each repair touched."""
    return {name: len(rows) for name, rows in repairs.items()}


def _repair_of(path: Path, digest: str | None) -> RepairOrigin | None:
    report = repair_report(path)
    if not path.is_file() or not report.is_file():
        return None
    try:
        found = _RepairReport.model_validate(json.loads(report.read_bytes()))
    except ValidationError as error:
        raise DataError("versions.repair_damaged", str(report), reason=why_invalid(error)) from None
    except ValueError as error:
        raise DataError("versions.repair_damaged", str(report), reason=str(error)) from None
    return RepairOrigin(
        source=found.source,
        sha256=found.sha256,
        read=found.read,
        written=found.written,
        repairs=counted_repairs(found.repairs),
        edited=None if found.written_sha256 is None else found.written_sha256 != digest,
    )


def _measured(path: Path) -> tuple[int | None, str | None]:
    """Return the size of a file, or of all files of a folder, in bytes, and the hash."""
    if path.is_file():
        return path.stat().st_size, sha256_of(path)
    if not path.is_dir():
        return None, None
    inner = sorted((item.relative_to(path).as_posix(), item) for item in path.rglob("*") if item.is_file())
    digest = hashlib.sha256()
    for name, item in inner:
        digest.update(f"{name}\0{sha256_of(item)}\n".encode("utf-8", "surrogateescape"))
    return sum(item.stat().st_size for _, item in inner), digest.hexdigest()

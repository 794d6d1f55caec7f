"""From a path to the files behind it, ready to be read: folders, archives and packed files opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.data.readers import plugin_suffixes, rows_by_plugin
from danlu.data.sources.archives import (
    Content,
    Zip,
    folder_content,
    folder_member,
    gzip_member,
    opened_zip,
    refuse_unknown,
)
from danlu.data.sources.arrow import arrow_rows
from danlu.data.sources.base import Kind, Member, Read
from danlu.data.sources.encodings import encoding_of, opened, texts
from danlu.data.sources.facts import MemberFacts
from danlu.data.sources.hub import HubName, hub_name, hub_rows
from danlu.data.sources.jsons import json_rows, layout_of
from danlu.data.sources.kinds import OWN_SUFFIXES, by_name, looks_like, told
from danlu.data.sources.sheets import sheet_rows
from danlu.data.sources.tables import csv_rows
from danlu.errors import DataError

# The field that holds a document: its length is not limited, because a document may be learned in pieces.
DOCUMENT_FIELD: Final = "text"


@dataclass(frozen=True)
class Reading:
    """A file that is being read.

    Attributes:
        member: the file.
        facts: what it is.
        rows: what stands in it; nothing is read before they are gone through.
    """

    member: Member
    facts: MemberFacts
    rows: Iterator[Read]


class Walk:
    """The files behind a path, in the order of reading.

    Attributes:
        skipped: names of files that were passed over, as far as is known.
        total: bytes of all files on the disk; 0 as long as that is not known.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._current: Member | None = None
        self._before = 0
        self.skipped: list[str] = []
        self.total = 0

    @property
    def done(self) -> int:
        """Bytes of the files that are read, as far as the reader has come in the one that is open."""
        member = self._current
        if member is None or not member.share:
            return self._before
        size = member.path.stat().st_size if member.path.is_file() else member.share
        return self._before + int(member.share * min(member.position.done / max(size, 1), 1.0))

    def files(self) -> Iterator[Reading]:
        """Go through the files.

        Raises:
            DataError: a file cannot be read, or is of a kind that is not read.
        """
        for reading in self._opened():
            self._current = reading.member
            yield reading
            self._before += reading.member.share
            self._current = None

    def _opened(self) -> Iterator[Reading]:
        hub = hub_name(self._path)
        if hub is not None:
            yield _hub(hub)
            return
        path = Path(self._path)
        if not path.is_dir():
            size = path.stat().st_size if path.is_file() else 0
            self.total = size
            yield from self._of(Member(path, str(path), share=size))
            return
        content = folder_content(path)
        self.skipped += content.skipped
        members = [folder_member(path, name) for name in content.names]
        self.total = sum(member.share for member in members)
        refuse_unknown(str(path), [member.name for member in members if _is_unknown(member)], _known())
        for member in members:
            yield from self._of(member)

    def _of(self, member: Member) -> Iterator[Reading]:
        kind, unlike_name = told(member)
        if kind == "zip":
            archive = opened_zip(member)
            try:
                self._look_into(archive, member)
                for inner in archive.members():
                    yield from self._of_inner(inner)
            finally:
                archive.close()
        elif kind == "gzip":
            for inner in gzip_member(member):
                yield from self._of_inner(inner)
        else:
            yield _reading(member, kind, unlike_name=unlike_name)

    def _of_inner(self, member: Member) -> Iterator[Reading]:
        kind, unlike_name = told(member)
        if kind == "zip":
            raise DataError("files.nested_archive", member.shown)
        if kind == "gzip":
            if member.suffix != ".gz":
                raise DataError("files.nested_archive", member.shown)
            for inner in gzip_member(member):
                yield from self._of_inner(inner)
            return
        if kind is None and member.name and not _has_plugin(member):
            refuse_unknown(member.shown, [member.name], _known())
        yield _reading(member, kind, unlike_name=unlike_name)

    def _look_into(self, archive: Zip, member: Member) -> None:
        content: Content = archive.content
        prefix = f"{member.name}/" if member.name else ""
        self.skipped += [prefix + name for name in content.skipped]
        unknown = [name for name in content.names if Path(name).suffix and _kind_named(name) is None]
        refuse_unknown(member.shown, unknown, _known())
        if member.share == self.total:
            self.total = archive.packed
        # Its files stand for what is packed of them; the archive's own table of contents is none of them.


def _reading(member: Member, kind: Kind | None, *, unlike_name: bool) -> Reading:
    name = member.name
    if kind is None:
        foreign = rows_by_plugin(member.path) if member.path.suffix else None
        if foreign is not None:
            return Reading(member, MemberFacts(name, "plugin"), foreign)
        kind = "json"  # says best what is wrong with it
    if kind in {"sheet", "parquet", "arrow"}:
        rows = sheet_rows(member) if kind == "sheet" else arrow_rows(member)
        return Reading(member, MemberFacts(name, kind, unlike_name=unlike_name), rows)
    if kind == "text":
        _require_content(member)
    encoding = encoding_of(member)
    if kind == "csv":
        return Reading(member, MemberFacts(name, "csv", encoding, unlike_name=unlike_name), csv_rows(member, encoding))
    if kind == "text":
        seems = looks_like(member, encoding)
        rows = iter([_document(member, encoding)])
        return Reading(member, MemberFacts(name, "text", encoding, looks_like=seems, unlike_name=unlike_name), rows)
    layout = layout_of(member, encoding)
    found: Kind = "jsonl" if layout.form == "lines" else "json"
    rows = json_rows(member, encoding, layout)
    return Reading(member, MemberFacts(name, found, encoding, unlike_name=unlike_name), rows)


def _hub(hub: HubName) -> Reading:
    return Reading(Member(Path(str(hub)), str(hub)), MemberFacts("", "hub"), hub_rows(hub))


def _require_content(member: Member) -> None:
    with opened(member) as file:
        if not file.read(1):
            raise DataError("data.empty_text", member.shown)


def _document(member: Member, encoding: str) -> Read:
    """Read a text file as one document; line ends of Windows become plain ones, as in any text editor."""
    text = "".join(texts(member, encoding))
    if not text.strip():
        raise DataError("data.empty_text", member.shown)
    if "\0" in text:
        raise DataError("data.binary_text", member.at(text.count("\n", 0, text.index("\0")) + 1))
    return 1, {DOCUMENT_FIELD: text.replace("\r\n", "\n")}


def _is_unknown(member: Member) -> bool:
    return by_name(member) is None and not _has_plugin(member) and told(member)[0] is None


def _has_plugin(member: Member) -> bool:
    return member.suffix in plugin_suffixes()


def _kind_named(name: str) -> Kind | None:
    member = Member(Path(name), name)
    return by_name(member) or ("plugin" if _has_plugin(member) else None)


def _known() -> list[str]:
    return sorted(OWN_SUFFIXES | plugin_suffixes())

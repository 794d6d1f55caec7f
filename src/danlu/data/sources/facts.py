"""What was found out about files while they were read: their kinds and encodings, and what was passed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from danlu.data.sources.base import Kind
from danlu.i18n import t

_ENCODINGS: Final = {
    "utf-8": "UTF-8", "utf-8-sig": "UTF-8 (BOM)", "utf-16": "UTF-16 (BOM)", "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE", "utf-32": "UTF-32 (BOM)", "gb18030": "GB18030",
}  # fmt: skip

# The same said of some of the files of a folder or an archive.
_OF_MANY: Final = {
    "files.read_as_encoding": "files.read_as_encoding_many",
    "files.read_as_kind": "files.read_as_kind_many",
    "files.looks_like": "files.looks_like_many",
}


@dataclass(frozen=True)
class MemberFacts:
    """One file.

    Attributes:
        name: its name within a folder or an archive; empty for a file by itself.
        kind: what it was read as.
        encoding: the codec it was read with; empty for kinds that have none.
        rows: rows of it that have been read so far.
        looks_like: what a text file seems to be in truth, ``jsonl`` or ``csv``; None where it seems to be a text.
        unlike_name: its content is of another kind than the end of its name says.
    """

    name: str
    kind: Kind
    encoding: str = ""
    rows: int = 0
    looks_like: Kind | None = None
    unlike_name: bool = False

    @property
    def shown_encoding(self) -> str:
        """The encoding as people write it; empty where there is none."""
        return _ENCODINGS.get(self.encoding, self.encoding)


@dataclass(frozen=True)
class FileFacts:
    """All files that a path stands for.

    Attributes:
        members: those that rows were read from so far, in the order of reading.
        skipped: names of files that were passed over, because systems and editors leave them, or because they
            describe data and are none.
    """

    members: tuple[MemberFacts, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def read_as(self) -> tuple[tuple[Kind, str], ...]:
        """The kinds that were read and their encodings as people write them, each pair once."""
        return tuple(dict.fromkeys((member.kind, member.shown_encoding) for member in self.members))

    def file_of(self, row: int) -> str:
        """Return the file within a folder or an archive that a row comes from, by its number; empty for row 0."""
        last = 0
        for member in self.members if row else ():
            last += member.rows
            if row <= last:
                return member.name
        return ""

    def notices(self) -> list[str]:
        """Say what people may not expect: another encoding than UTF-8, an unlike name, files that were passed over.

        Returns:
            Sentences in the language in force; none where everything is as it seems.
        """
        return [*_unusual(self.members), *_passed_over(self.skipped)]


def shown_kind(kind: Kind) -> str:
    """Return the name of a kind, for people."""
    return t(f"files.kind_{kind}")


def _unusual(members: tuple[MemberFacts, ...]) -> list[str]:
    """Group what is to be said by what it is, so that a thousand files alike are one sentence."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for member in members:
        if member.encoding not in {"", "utf-8", "utf-8-sig"}:
            said.setdefault(("files.read_as_encoding", "encoding", member.shown_encoding), []).append(member.name)
        if member.unlike_name:
            said.setdefault(("files.read_as_kind", "kind", shown_kind(member.kind)), []).append(member.name)
        if member.looks_like is not None:
            said.setdefault(("files.looks_like", "kind", shown_kind(member.looks_like)), []).append(member.name)
    return [
        t(_OF_MANY[key] if any(names) else key, files=listed(names), count=len(names), **{word: value})
        for (key, word, value), names in said.items()
    ]


def _passed_over(skipped: tuple[str, ...]) -> list[str]:
    return [t("files.skipped", files=listed(skipped), count=len(skipped))] if skipped else []


def listed(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """Return the first names of a list and how many more there are."""
    first = ", ".join(names[:most])
    return first if len(names) <= most else t("files.and_more", names=first, count=len(names) - most)

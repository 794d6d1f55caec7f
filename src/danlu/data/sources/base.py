"""What a kind of file gives: values with the line they stand on, from a file that may be one of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from danlu.i18n import t

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
# A row's values, and the line (of a table: its row) that it begins on, from 1.
Read = tuple[int, dict[str, JsonValue]]
Kind = Literal["json", "jsonl", "csv", "sheet", "parquet", "arrow", "text", "plugin", "zip", "gzip", "hub"]


@dataclass
class Position:
    """How far a reader has come in one file; it writes, whoever shows progress reads.

    Attributes:
        done: bytes read.
    """

    done: int = 0


@dataclass(frozen=True)
class Member:
    """A file to be read.

    Attributes:
        path: where it lies, for a member of an archive where it was unpacked.
        shown: what people call it.
        name: its name within a folder or an archive; empty for a file by itself.
        share: bytes that it stands for in what is shown as progress: those on the disk, packed where it is packed.
        position: how far it has been read.
    """

    path: Path
    shown: str
    name: str = ""
    share: int = 0
    position: Position = field(default_factory=Position, compare=False)

    @property
    def suffix(self) -> str:
        """End of its name, in lower case."""
        return Path(self.name or self.shown).suffix.lower()

    def at(self, line: int) -> str:
        """Return a place in it, for people: ``file, line 17``."""
        return t("data.place_line", file=self.shown, line=line)


def kind_of(value: JsonValue) -> str:
    """Say what a JSON value is, for people."""
    kinds = {dict: "object", list: "list", str: "text", bool: "bool", int: "number", float: "number"}
    return t(f"data.kind_{kinds.get(type(value), 'null')}")

"""What a kind of file gives: values with the line they stand on, from a file that may be one of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from danlu.i18n import t

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
# A row's values, and the line (of a table: its row) that it begins on, from 1.
Read = tuple[int, dict[str, JsonValue]]


@dataclass(frozen=True)
class Member:
    """A file to be read.

    Attributes:
        path: where it lies, for a member of an archive where it was unpacked.
        shown: what people call it.
        name: its name within a folder or an archive; empty for a file by itself.
    """

    path: Path
    shown: str
    name: str = ""

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

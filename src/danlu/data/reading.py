"""How a file is to be read where its own names do not say it: columns, tags, what placeholders stand for.

Applied row by row before a family of rows reads them; what is registered are the rows as they are afterwards. Not for
kinds of files (``rows``) nor for families (``formats``).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

from danlu.data.formats import FORMATS, format_named
from danlu.data.rows import JsonValue, Row
from danlu.errors import UsageError

# What a column may be said to hold, and the field that is read for it.
MEANINGS: Final[dict[str, str]] = {
    "question": "instruction", "prompt": "instruction", "instruction": "instruction",
    "answer": "output", "response": "output", "output": "output",
    "input": "input", "query": "input", "context": "input",
    "system": "system", "history": "history", "messages": "messages", "tools": "tools",
    "chosen": "chosen", "rejected": "rejected", "label": "kto_tag", "kto_tag": "kto_tag",
    "text": "text", "weight": "weight", "accepted": "accepted",
}  # fmt: skip
# {{name}} with a plain name: what is left in example sets for the user to fill in.
_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^\W\d][\w-]{0,39})\s*\}\}")
# In rows about code or templates such a thing is what is talked about.
_CODE: Final = re.compile(r"```|\{%|</|\bJinja|\bVue|\bmustache|\bhandlebars|\btemplate|模板", re.IGNORECASE)
_SAMPLE_SEED: Final = 42


class Tags(BaseModel):
    """What a list of messages calls its keys and speakers; LLaMA-Factory's ``tags``, with its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    observation_tag: str = "observation"
    function_tag: str = "function_call"
    system_tag: str = "system"

    def renamed(self, value: JsonValue) -> JsonValue:
        """Return a message, or a list of them, with the keys and speakers that are read everywhere."""
        if isinstance(value, list):
            return [self.renamed(item) for item in value]
        if not isinstance(value, dict):
            return value
        speakers = {
            self.user_tag: "user",
            self.assistant_tag: "assistant",
            self.observation_tag: "tool",
            self.function_tag: "function_call",
            self.system_tag: "system",
        }
        others = {key: item for key, item in value.items() if key not in {self.role_tag, self.content_tag}}
        role, made = value.get(self.role_tag), dict[str, JsonValue]()
        if self.role_tag in value:
            made["role"] = speakers.get(role, role) if isinstance(role, str) else role
        if self.content_tag in value:
            made["content"] = value[self.content_tag]
        return {**made, **others}


class Reading(BaseModel):
    """How the rows of a file are read.

    Attributes:
        format: name of a family of rows; ``auto`` recognises it.
        columns: what is meant (``MEANINGS``), by the name of the column that holds it; columns that are not named stay
            unless their names mean something else.
        tags: keys and speakers of messages, where they are not the usual ones.
        fill: what placeholders such as ``{{name}}`` stand for; one that stands for itself is left as it is.
        samples: so many rows, chosen by chance with a fixed seed; more than there are repeats them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "auto"
    columns: dict[str, str] = {}
    tags: Tags | None = None
    fill: dict[str, str] = {}
    samples: int | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "auto":
            format_named(value)
        return value

    @property
    def plain(self) -> bool:
        """Whether rows are read as they stand."""
        return self == Reading()

    def apply(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Go through rows as they are to be read."""
        chosen = rows if self.samples is None else _sampled(list(rows), self.samples)
        for row in chosen:
            values = self._moved(row.values)
            if self.tags is not None:
                values = {
                    name: self.tags.renamed(value) if name in {"messages", "chosen", "rejected"} else value
                    for name, value in values.items()
                }
            yield replace(row, values=_filled_values(values, self.fill) if self.fill else values)

    def _moved(self, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        if not self.columns:
            return dict(values)
        moved = {MEANINGS[meaning]: values[column] for meaning, column in self.columns.items() if column in values}
        taken = set(self.columns.values())
        others = {name: value for name, value in values.items() if name not in taken and name not in _READ}
        return {**moved, **others}


_READ: Final = frozenset(field for family in FORMATS for field in family.fields)


def reading_of(
    family: str = "auto", columns: Iterable[str] = (), fill: Iterable[str] = (), samples: int | None = None
) -> Reading:
    """Make a reading of what is written on a command line.

    Args:
        family: name of a family, or ``auto``.
        columns: ``meaning=column`` each, several of them separated by commas.
        fill: ``name=value`` each.
        samples: number of rows.

    Raises:
        UsageError: a pair is no pair, or a meaning is unknown.
        DataError: there is no family of this name.
    """
    wanted: dict[str, str] = {}
    for pair in (part for item in columns for part in item.split(",")):
        meaning, sign, column = (part.strip() for part in pair.partition("="))
        if not sign or not column:
            raise UsageError("formats.pair_shape", pair=pair, example="question=问题")
        if meaning not in MEANINGS:
            raise UsageError("formats.unknown_meaning", name=meaning, known=", ".join(MEANINGS))
        wanted[meaning] = column
    filled: dict[str, str] = {}
    for pair in fill:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise UsageError("formats.pair_shape", pair=pair, example="name=Mochi")
        filled[name.strip()] = value
    return Reading(format=family, columns=wanted, fill=filled, samples=samples)


class Placeholders:
    """Finds what was left to be filled in, row after row.

    Attributes:
        rows: for each placeholder in how many rows it stands, rows about code or templates left out.
        first: the first row of each.
    """

    def __init__(self, kept: Iterable[str] = ()) -> None:
        self.rows: Counter[str] = Counter()
        self.first: dict[str, Row] = {}
        self._kept = frozenset(kept)

    def look(self, row: Row) -> None:
        """Look at a row."""
        texts = [text for value in row.values.values() for text in _texts(value) if "{{" in text]
        if not texts or any(_CODE.search(text) for text in texts):
            return
        for name in {name for text in texts for name in _PLACEHOLDER.findall(text)} - self._kept:
            self.rows[name] += 1
            self.first.setdefault(name, row)


def _filled_values(values: Mapping[str, JsonValue], fill: Mapping[str, str]) -> dict[str, JsonValue]:
    return {name: _filled(value, fill) for name, value in values.items()}


def _filled(value: JsonValue, fill: Mapping[str, str]) -> JsonValue:
    if isinstance(value, str):
        if "{{" not in value:
            return value
        return _PLACEHOLDER.sub(lambda found: fill.get(found.group(1), found.group(0)), value)
    if isinstance(value, list):
        return [_filled(item, fill) for item in value]
    if isinstance(value, dict):
        return _filled_values(value, fill)
    return value


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value if isinstance(value, list) else value.values():
            yield from _texts(inner)


def _sampled(rows: list[Row], count: int) -> list[Row]:
    """Return rows chosen by chance, in the order of the file; all of them again and again where there are too few."""
    whole, rest = divmod(count, len(rows)) if rows else (0, 0)
    chosen = sorted(random.Random(_SAMPLE_SEED).sample(range(len(rows)), rest))  # noqa: S311  a sample, not a secret
    return rows * whole + [rows[number] for number in chosen]

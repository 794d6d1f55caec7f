"""How a file is to be read where its own names do not say it: columns, tags, what placeholders stand for.

Applied row by row before a family of rows reads them; what is registered are the rows as they are afterwards. Not for
kinds of files (``rows``) nor for families (``formats``).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

from danlu.data.formats import FORMATS, format_named
from danlu.data.formats.messages import LISTS
from danlu.data.formats.names import fold
from danlu.data.formats.turns import CONTENT_KEYS, ROLE_KEYS, joined
from danlu.data.placeholders import filled
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
# Without these nothing can be read: a column that is said to hold one must be there.
NEEDED: Final = frozenset({"instruction", "output", "messages", "chosen", "rejected", "kto_tag", "text"})
# What a list of messages may call its keys and speakers, and the tag that says so.
TAGS: Final[dict[str, str]] = {
    "role": "role_tag", "content": "content_tag", "user": "user_tag", "assistant": "assistant_tag",
    "tool": "observation_tag", "call": "function_tag", "system": "system_tag",
}  # fmt: skip
_TURNS: Final = frozenset({*LISTS, "chosen", "rejected", "prompt", "completion"})
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
        made = dict[str, JsonValue]()
        # Where only the speakers are renamed, the keys have one of their usual names.
        role_key = next((key for key in (self.role_tag, *ROLE_KEYS) if key in value), "")
        content_key = next((key for key in (self.content_tag, *CONTENT_KEYS) if key in value), "")
        if role_key:
            role = value[role_key]
            made["role"] = speakers.get(role, role) if isinstance(role, str) else role
        if content_key:
            made["content"] = value[content_key]
        return {**made, **{key: item for key, item in value.items() if key not in {role_key, content_key}}}


class Reading(BaseModel):
    """How the rows of a file are read.

    Attributes:
        format: name of a family of rows; ``auto`` recognises it.
        columns: what is meant (``MEANINGS``), by the name of the column that holds it; columns that are not named stay
            unless their names mean something else.
        tags: keys and speakers of messages, where they are not the usual ones.
        fill: what placeholders such as ``{{name}}`` stand for; one that stands for itself is left as it is.
        fill_none: all placeholders are left as they are.
        merge_turns: messages of the same speaker in a row become one, with an empty line between them.
        samples: so many rows, chosen by chance with a fixed seed; more than there are repeats them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "auto"
    columns: dict[str, str] = {}
    tags: Tags | None = None
    fill: dict[str, str] = {}
    fill_none: bool = False
    merge_turns: bool = False
    samples: int | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if value == "auto" else format_named(value).name

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
                values = {name: self.tags.renamed(value) if name in _TURNS else value for name, value in values.items()}
            if self.merge_turns:
                values = {name: joined(value) if name in _TURNS else value for name, value in values.items()}
            yield replace(row, values=filled(values, self.fill) if self.fill else values)

    def _moved(self, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        if not self.columns:
            return dict(values)
        moved = {
            _field(meaning, values[column]): values[column]
            for meaning, column in self.columns.items()
            if column in values
        }
        taken = set(self.columns.values())
        # A column that nobody has mapped must not be taken for something because of its name.
        others = {
            name: value
            for name, value in values.items()
            if name not in taken and name not in _READ and fold(name) not in _READ
        }
        return {**moved, **others}


_READ: Final = frozenset(field for family in FORMATS for field in family.fields)


def reading_of(
    family: str = "auto",
    columns: Iterable[str] = (),
    fill: Iterable[str] = (),
    tags: Iterable[str] = (),
    *,
    fill_none: bool = False,
    merge_turns: bool = False,
) -> Reading:
    """Make a reading of what is written on a command line.

    Args:
        family: name of a family, or ``auto``.
        columns: ``meaning=column`` each, several of them separated by commas.
        fill: ``name=value`` each.
        tags: ``tag=word`` each, several of them separated by commas.
        fill_none: leave placeholders as they are.
        merge_turns: join messages of the same speaker.

    Raises:
        UsageError: a pair is no pair, a meaning or a tag is unknown, or a column is to be two things.
        DataError: there is no family of this name.
    """
    if family != "auto":
        family = format_named(family).name
    wanted: dict[str, str] = {}
    for meaning, column in _pairs(columns, "question=问题"):
        if meaning not in MEANINGS:
            raise UsageError("formats.unknown_meaning", name=meaning, known=", ".join(MEANINGS))
        if column in wanted.values():
            raise UsageError("formats.column_twice", column=column)
        wanted[meaning] = column
    tagged: dict[str, str] = {}
    for tag, word in _pairs(tags, "user=customer"):
        if tag not in TAGS:
            raise UsageError("formats.unknown_tag", name=tag, known=", ".join(TAGS))
        tagged[TAGS[tag]] = word
    given: dict[str, str] = {}
    for pair in fill:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise UsageError("formats.pair_shape", pair=pair, example="name=Mochi")
        given[name.strip()] = value
    return Reading(
        format=family,
        columns=wanted,
        tags=Tags.model_validate(tagged) if tagged else None,
        fill=given,
        fill_none=fill_none,
        merge_turns=merge_turns,
    )


def _pairs(items: Iterable[str], example: str) -> Iterator[tuple[str, str]]:
    """Take ``a=b,c=d`` apart."""
    for pair in (part for item in items for part in item.split(",")):
        name, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not value:
            raise UsageError("formats.pair_shape", pair=pair, example=example)
        yield name, value


def _field(meaning: str, value: JsonValue) -> str:
    """Return the field that is read for what a column holds; a question or an answer may be a list of messages."""
    field = MEANINGS[meaning]
    return {"instruction": "prompt", "output": "completion"}.get(field, field) if isinstance(value, list) else field


def _sampled(rows: list[Row], count: int) -> list[Row]:
    """Return rows chosen by chance, in the order of the file; all of them again and again where there are too few."""
    whole, rest = divmod(count, len(rows)) if rows else (0, 0)
    chosen = sorted(random.Random(_SAMPLE_SEED).sample(range(len(rows)), rest))  # noqa: S311  a sample, not a secret
    return rows * whole + [rows[number] for number in chosen]

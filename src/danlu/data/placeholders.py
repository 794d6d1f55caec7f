"""What example sets leave for their user to fill in, ``{{name}}`` and the like: found, filled, told from code.

Sets for a persona are handed round with ``{{name}}`` and ``{{author}}`` (older ones with ``<NAME>``, ``<AUTHOR>``) in
place of names; learned as they are, the model introduces itself as a pair of braces. Rows about templates and
formulas hold braces because that is what they are about; those are left alone and counted. Not for asking (``cli``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.rows import JsonValue, Row, place
from danlu.errors import DataError

# A plain name in double braces: not {{a.b}}, {{x|upper}}, ${{x}}, nor what belongs to a formula, \frac{a}{{b}}.
_BRACES: Final = r"(?<![\\_^$%{&A-Za-z0-9])(?<![^}]\})\{\{[ \t]*([^\W\d][\w-]{0,39})[ \t]*\}\}(?!\})"
# The two that sets without braces use, in capitals only: <name> is a tag.
_ANGLES: Final = r"<(NAME|AUTHOR)>"
_PLACEHOLDER: Final = re.compile(f"{_BRACES}|{_ANGLES}")
# What a row about code or templates shows somewhere.
_CODE: Final = re.compile(
    r"```|`[^`\n]*\{\{|\{%|\{\{[#/>!^&~]|</\w+>|\$\{|\\(?:frac|begin|text)\b|模板(?:语言|引擎|语法)"
    r"|\b(?:jinja2?|vue(?:\.?js)?|angular|mustache|handlebars|django|liquid|helm|ansible|hugo|twig|templat(?:e|ing)s?)\b",
    re.IGNORECASE,
)
# One row with one of these is enough: nobody writes about them in braces, and personas hang on them.
_KNOWN: Final = frozenset({
    "name", "author", "bot_name", "assistant_name", "model_name", "ai_name", "company", "company_name", "developer",
    "creator", "owner", "brand", "organization", "名字", "名称", "姓名", "作者", "公司", "开发者",
})  # fmt: skip
# Others are a pattern from so many rows on; in a single one the braces may be what is meant.
_ROWS: Final = 2


@dataclass
class Found:
    """A placeholder.

    Attributes:
        shown: as it stands in the first row.
        name: its name there, without braces.
        first: the first row that it stands in.
        rows: in how many it does.
    """

    shown: str
    name: str
    first: Row
    rows: int = 0


class Placeholders:
    """Finds what was left to be filled in, row after row.

    Args:
        kept: names that are left as they are, or that are being filled.
        none: nothing is looked for, because everything is left as it is.

    Attributes:
        found: each placeholder by its name without case.
        code: rows about code or templates that hold something like a placeholder; it is left as it is.
    """

    def __init__(self, kept: Iterable[str] = (), *, none: bool = False) -> None:
        self.found: dict[str, Found] = {}
        self.code = 0
        self._kept = frozenset(name.casefold() for name in kept)
        self._none = none

    def look(self, row: Row, item: object) -> None:
        """Look at a row, and at what it means: only what a model would read counts."""
        if self._none:
            return
        here: dict[str, tuple[str, str]] = {}
        for text in _said(item):
            if "{{" in text or "<" in text:
                for match in _PLACEHOLDER.finditer(text):
                    here.setdefault(name_in(match).casefold(), (match.group(), name_in(match)))
        if not here:
            return
        if about_code(row.values):
            self.code += 1
            return
        for key, (shown, name) in here.items():
            if key in self._kept:
                continue
            self.found.setdefault(key, Found(shown, name, row)).rows += 1

    @property
    def open(self) -> list[Found]:
        """What must be filled in before anything is learned, what stands in most rows first."""
        sure = [found for key, found in self.found.items() if found.rows >= _ROWS or key in _KNOWN]
        return sorted(sure, key=lambda found: (-found.rows, found.first.index))

    @property
    def doubtful(self) -> list[Found]:
        """What stands in a single row and may be meant as it is."""
        return [found for key, found in self.found.items() if found.rows < _ROWS and key not in _KNOWN]

    def require_none(self, file: str) -> None:
        """Check that nothing is left to be filled in.

        Raises:
            DataError: something is; the message names it with its rows, and how to say what it stands for.
        """
        if self.open:
            raise DataError("formats.placeholders", place(file, self.open[0].first), **self.params())

    def params(self) -> dict[str, str]:
        """Return what the message about those that are open says of them."""
        return {
            "names": ", ".join(f"{found.shown} ({found.rows})" for found in self.open),
            "fill": " ".join(f'--fill {found.name}="…"' for found in self.open),
            "recipe": ", ".join(f"{found.name}: …" for found in self.open),
        }


def filled(values: Mapping[str, JsonValue], fill: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return a row's values with its placeholders filled in, whatever their case; a row about code as it is.

    Args:
        values: the row.
        fill: what each name stands for; names that are not there stay as they are.
    """
    if about_code(values):
        return dict(values)
    folded = {name.casefold(): text for name, text in fill.items()}
    return {name: _filled(value, folded) for name, value in values.items()}


def about_code(values: Mapping[str, JsonValue]) -> bool:
    """Say whether a row is about code, templates or formulas, where braces are what is talked about."""
    return any(_CODE.search(text) for value in values.values() for text in _texts(value))


def name_in(match: re.Match[str]) -> str:
    """Return the name that a placeholder holds."""
    return str(match.group(1) or match.group(2))


def _filled(value: JsonValue, fill: Mapping[str, str]) -> JsonValue:
    if isinstance(value, str):
        if "{{" not in value and "<" not in value:
            return value
        return _PLACEHOLDER.sub(lambda match: fill.get(name_in(match).casefold(), match.group()), value)
    if isinstance(value, list):
        return [_filled(item, fill) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, fill) for name, item in value.items()}
    return value


def _said(item: object) -> Iterator[str]:
    """Go through the texts that a model would read."""
    if isinstance(item, Document):
        yield item.text
    elif isinstance(item, Preference):
        for answer in item.answers:
            yield from _said(answer)
    elif isinstance(item, Conversation | Question):
        for message in item.messages:
            yield message.content
            yield message.reasoning


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value if isinstance(value, list) else value.values():
            yield from _texts(inner)

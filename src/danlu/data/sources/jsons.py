"""JSON Lines and JSON arrays, row by row, with the line that each row begins on.

A comma after the last row is forgiven. A list may stand under one key of an object, as ``{"data": [...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from danlu.data.sources.base import JsonValue, Member, Read, kind_of
from danlu.data.sources.encodings import texts
from danlu.errors import DataError
from danlu.i18n import t

# Names under which the rows of a file may stand.
WRAPPERS: Final = frozenset({"data", "rows", "examples", "train", "items", "records", "samples", "dataset", "数据"})
_SPACE: Final = " \t\r\n"
# A row of more characters is none; the limit keeps a missing quotation mark from reading all of a file into memory.
LONGEST_ROW: Final = 64_000_000
_REFILL: Final = 1 << 20
_DECODE: Final = json.JSONDecoder().raw_decode


class _Text:
    """The text of a file, of which only what is not read yet is held.

    Attributes:
        held: the text that is held.
        at: where in it reading goes on.
        line: the line of that place, from 1.
    """

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.held = ""
        self.at = 0
        self.line = 1

    def more(self, least: int = 1) -> bool:
        """Take in at least so many characters more, letting go of what is read; say whether there were any."""
        found: list[str] = []
        count = 0
        while count < least and (piece := next(self._pieces, None)) is not None:
            found.append(piece)
            count += len(piece)
        if not count:
            return False
        self.held = self.held[self.at :] + "".join(found)
        self.at = 0
        return True

    def skip(self) -> str:
        """Go to the next character that is no space and return it; nothing at the end of the file."""
        while True:
            held, at = self.held, self.at
            while at < len(held):
                char = held[at]
                if char not in _SPACE:
                    self.at = at
                    return char
                self.line += char == "\n"
                at += 1
            self.at = at
            if not self.more():
                return ""

    def take(self, end: int) -> None:
        """Go on at a later place of what is held."""
        self.line += self.held.count("\n", self.at, end)
        self.at = end


@dataclass(frozen=True)
class Layout:
    """How the rows lie in a file.

    Attributes:
        form: a list, a row on each line, or a list under one key of an object.
        key: that key.
    """

    form: Literal["list", "lines", "wrapped"]
    key: str = ""


def layout_of(member: Member, encoding: str) -> Layout:
    """Find out how the rows lie in a file.

    An object over several lines is gone through once, without being held: a second list may come behind the first,
    and one of two must not be left out.

    Raises:
        DataError: empty, or an object with several lists of objects, or with none.
    """
    text = _Text(texts(member, encoding))
    start = text.skip()
    if not start:
        raise DataError("data.empty_file", member.shown)
    if start != "{":
        return Layout("list" if start == "[" else "lines")
    first = _line(member, text, most=_REFILL)
    if first is not None:
        fields = _fields(first)
        if fields is not None and (text.skip() or not any(key in WRAPPERS for key in fields)):
            return Layout("lines")
    return _layout_of_object(member, _Text(texts(member, encoding)))


def json_rows(member: Member, encoding: str, layout: Layout) -> Iterator[Read]:
    """Go through the rows of a file.

    Raises:
        DataError: not JSON, or not a list of objects.
    """
    text = _Text(texts(member, encoding))
    text.skip()
    if layout.form == "list":
        yield from _array(member, text)
    elif layout.form == "lines":
        yield from _lines(member, text)
    else:
        for name in _keys(member, text):
            if name == layout.key and text.skip() == "[":
                yield from _array(member, text, inner=True)
            else:
                _pass_over(member, text)
        if text.skip():
            raise DataError("data.not_json", member.at(text.line), reason=t("data.text_after_end"))


def _array(member: Member, text: _Text, *, inner: bool = False) -> Iterator[Read]:
    text.at += 1
    count = 0
    while text.skip() != "]":
        line = text.line
        value = _value(member, text)
        count += 1
        yield line, _object(member, value, count, line)
        after = text.skip()
        if after == ",":
            text.at += 1
        elif after != "]":
            raise DataError("data.not_json", member.at(text.line), reason=t("data.expected_comma"))
    text.at += 1
    if not inner and text.skip():
        raise DataError("data.not_json", member.at(text.line), reason=t("data.text_after_end"))


def _lines(member: Member, text: _Text) -> Iterator[Read]:
    count = 0
    while text.skip():
        number = text.line
        line = _line(member, text)
        value, end = _decoded(member, line or "", number)
        if line is not None and end < len(line) and line[end:].strip():
            raise DataError("data.not_json", member.at(number), reason=t("data.text_after_row"))
        count += 1
        yield number, _object(member, value, count, number)


def _line(member: Member, text: _Text, most: int | None = None) -> str | None:
    """Return the rest of the line and go behind it; lines end at line feeds only, U+2028 stands inside JSON texts.

    Args:
        member: the file.
        text: its text.
        most: None is returned for a longer line; without it such a line is refused.

    Raises:
        DataError: the line is longer than any row.
    """
    looked = text.at
    while (end := text.held.find("\n", looked)) < 0:
        looked = len(text.held) - text.at
        if looked > (most or LONGEST_ROW):
            if most is None:
                raise DataError("files.row_too_long", member.at(text.line), most=LONGEST_ROW)
            return None
        if not text.more(max(looked, 1)):
            end = len(text.held)
            break
    line = text.held[text.at : end]
    text.at = end
    return line


def _fields(line: str) -> Collection[str] | None:
    """Return the names of the fields whose values are lists of objects; None where the line is no JSON."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return ()
    return [key for key, rows in value.items() if isinstance(rows, list) and all(isinstance(row, dict) for row in rows)]


def _layout_of_object(member: Member, text: _Text) -> Layout:
    counts: dict[str, int] = {}
    begun: list[str] = []
    text.skip()
    line = text.line
    try:
        for name in _keys(member, text):
            if text.skip() == "[" and name in WRAPPERS:
                begun.append(name)
            count = _pass_over(member, text)
            if count is not None:
                counts[name] = count
        one_line = text.line == line
        follows = text.skip()
    except DataError:
        # Broken: reading it in the way that it begins says where.
        return Layout("wrapped", begun[0]) if begun else Layout("lines")
    if follows:
        return Layout("wrapped", begun[0]) if begun and follows != "{" else Layout("lines")
    names = [name for name, count in counts.items() if count or name in WRAPPERS]
    if one_line and not begun:
        return Layout("lines")  # a single row, of more characters than are looked at above
    if len(names) > 1:
        raise DataError("files.several_lists", member.shown, keys=", ".join(names))
    if not names or names[0] not in WRAPPERS:
        raise DataError("data.not_a_list", member.shown, kind="{…}")
    return Layout("wrapped", names[0])


def _keys(member: Member, text: _Text) -> Iterator[str]:
    """Go through the keys of an object; whoever asks for the next one has read or passed over the value.

    Raises:
        DataError: it is no object.
    """
    text.skip()
    text.at += 1
    while (char := text.skip()) != "}":
        if char != '"':
            reason = "Expecting property name enclosed in double quotes"
            raise DataError("data.not_json", member.at(text.line), reason=reason)
        name = _value(member, text)
        if text.skip() != ":":
            raise DataError("data.not_json", member.at(text.line), reason="Expecting ':' delimiter")
        text.at += 1
        yield str(name)
        after = text.skip()
        if after == ",":
            text.at += 1
        elif after != "}":
            raise DataError("data.not_json", member.at(text.line), reason="Expecting ',' delimiter")
    text.at += 1


def _pass_over(member: Member, text: _Text) -> int | None:
    """Read a value and forget it, a list piece by piece; return how many objects it held if it held nothing else."""
    if text.skip() != "[":
        _value(member, text)
        return None
    text.at += 1
    count, only_objects = 0, True
    while text.skip() != "]":
        only_objects &= isinstance(_value(member, text), dict)
        count += 1
        after = text.skip()
        if after == ",":
            text.at += 1
        elif after != "]":
            raise DataError("data.not_json", member.at(text.line), reason=t("data.expected_comma"))
    text.at += 1
    return count if only_objects else None


def _value(member: Member, text: _Text) -> JsonValue:
    """Read the value at the place, taking in more of the file as long as the value goes on."""
    value: JsonValue
    while True:
        try:
            value, end = _DECODE(text.held, text.at)
        except json.JSONDecodeError as error:
            held = len(text.held) - text.at
            goes_on = error.msg.startswith("Unterminated string") or error.pos >= len(text.held) - 16
            if goes_on and held > LONGEST_ROW:
                raise DataError("files.row_too_long", member.at(text.line), most=LONGEST_ROW) from None
            if goes_on and text.more(max(held, _REFILL)):
                continue
            here = text.line + text.held.count("\n", text.at, error.pos)
            raise DataError("data.not_json", member.at(here), reason=error.msg) from None
        except ValueError as error:  # a number with more digits than Python converts
            raise DataError("data.not_json", member.at(text.line), reason=str(error)) from None
        except RecursionError:
            raise DataError("data.not_json", member.at(text.line), reason=t("data.nested_too_deeply")) from None
        if end == len(text.held) and text.more():
            continue  # a number may go on
        text.take(end)
        return value


def _decoded(member: Member, line: str, number: int) -> tuple[JsonValue, int]:
    try:
        return _DECODE(line)
    except json.JSONDecodeError as error:
        raise DataError("data.not_json", member.at(number), reason=error.msg) from None
    except ValueError as error:  # a number with more digits than Python converts
        raise DataError("data.not_json", member.at(number), reason=str(error)) from None
    except RecursionError:
        raise DataError("data.not_json", member.at(number), reason=t("data.nested_too_deeply")) from None


def _object(member: Member, value: JsonValue, index: int, line: int) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        where = t("data.place_row", file=member.shown, row=index, line=line)
        raise DataError("data.row_not_object", where, kind=kind_of(value))
    return value

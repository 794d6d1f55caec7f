"""JSON Lines and JSON arrays, row by row, with the line that each row begins on.

A comma after the last row is forgiven. A list may stand under one key of an object, as ``{"data": [...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NoReturn

from danlu.data.sources.base import JsonValue, Member, Read, kind_of
from danlu.data.sources.encodings import encoding_of, texts
from danlu.errors import DataError
from danlu.i18n import t

# Names under which the rows of a file may stand.
WRAPPERS: Final = frozenset({"data", "rows", "examples", "train", "items", "records", "samples", "dataset", "数据"})
_SPACE: Final = " \t\r\n"
# A value that is longer than that is no row; the limit keeps a missing quotation mark from reading all of a file.
_LONGEST_VALUE: Final = 64_000_000
_REFILL: Final = 1 << 20


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
            while self.at < len(self.held):
                char = self.held[self.at]
                if char not in _SPACE:
                    return char
                self.line += char == "\n"
                self.at += 1
            if not self.more():
                return ""

    def take(self, end: int) -> None:
        """Go on at a later place of what is held."""
        self.line += self.held.count("\n", self.at, end)
        self.at = end


def json_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of a file.

    Raises:
        DataError: empty, in an encoding that is not read, not JSON, or not a list of objects.
    """
    text = _Text(texts(member, encoding_of(member)))
    first = text.skip()
    if not first:
        raise DataError("data.empty_file", member.shown)
    if first == "[":
        yield from _array(member, text)
    else:
        yield from _lines(member, text)


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
    decoder = json.JSONDecoder()
    count = 0
    while text.skip():
        number, line = text.line, _line(text)
        try:
            value, end = _decode(member, decoder, line, number)
        except DataError:
            if count == 0 and line[0] == "{":
                yield from _wrapped(member)
                return
            raise
        if line[end:].strip():
            raise DataError("data.not_json", member.at(number), reason=t("data.text_after_row"))
        count += 1
        if count == 1 and isinstance(value, dict) and _wrapper(value) and not text.skip():
            yield from _wrapped(member)
            return
        yield number, _object(member, value, count, number)


def _line(text: _Text) -> str:
    """Return the rest of the line and go behind it; lines end at line feeds only, U+2028 stands inside JSON texts."""
    looked = text.at
    while (end := text.held.find("\n", looked)) < 0:
        looked = len(text.held) - text.at
        if not text.more():
            end = len(text.held)
            break
    line = text.held[text.at : end]
    text.at = end
    return line


def _wrapped(member: Member) -> Iterator[Read]:
    """Go through the rows under the one key of an object that holds a list of them.

    Raises:
        DataError: the file is no JSON object, or holds no such list, or several.
    """
    whole = "".join(texts(member, encoding_of(member)))
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError):
        _raise_first(member)
    keys = _wrapper(value) if isinstance(value, dict) else []
    if len(keys) > 1:
        raise DataError("files.several_lists", member.shown, keys=", ".join(keys))
    if not keys:
        raise DataError("data.not_a_list", member.shown, kind="{…}")
    text = _Text(iter([whole]))
    text.skip()
    text.at += 1
    while True:
        text.skip()
        key = _value(member, text)
        text.skip()
        text.at += 1
        text.skip()
        if key == keys[0]:
            yield from _array(member, text, inner=True)
            return
        _value(member, text)
        text.skip()
        text.at += 1


def _wrapper(value: dict[str, JsonValue]) -> list[str]:
    """Return the keys under which rows stand."""
    return [
        key
        for key, inner in value.items()
        if key in WRAPPERS and isinstance(inner, list) and inner and all(isinstance(row, dict) for row in inner)
    ]


def _raise_first(member: Member) -> NoReturn:
    """Raise what is wrong with the first line of JSON Lines."""
    text = _Text(texts(member, encoding_of(member)))
    text.skip()
    number = text.line
    _decode(member, json.JSONDecoder(), _line(text), number)
    raise AssertionError("unreachable")


def _value(member: Member, text: _Text) -> JsonValue:
    """Read the value at the place, taking in more of the file as long as the value goes on."""
    decoder = json.JSONDecoder()
    value: JsonValue
    while True:
        try:
            value, end = decoder.raw_decode(text.held, text.at)
        except json.JSONDecodeError as error:
            held = len(text.held) - text.at
            goes_on = error.msg.startswith("Unterminated string") or error.pos >= len(text.held) - 16
            if goes_on and held < _LONGEST_VALUE and text.more(max(held, _REFILL)):
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


def _decode(member: Member, decoder: json.JSONDecoder, line: str, number: int) -> tuple[JsonValue, int]:
    try:
        value, end = decoder.raw_decode(line)
    except json.JSONDecodeError as error:
        raise DataError("data.not_json", member.at(number), reason=error.msg) from None
    except ValueError as error:
        raise DataError("data.not_json", member.at(number), reason=str(error)) from None
    except RecursionError:
        raise DataError("data.not_json", member.at(number), reason=t("data.nested_too_deeply")) from None
    return value, end


def _object(member: Member, value: JsonValue, index: int, line: int) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        where = t("data.place_row", file=member.shown, row=index, line=line)
        raise DataError("data.row_not_object", where, kind=kind_of(value))
    return value

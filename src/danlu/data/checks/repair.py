"""Repairs that are safe: each can be told from the row alone, changes nothing else, and is counted row by row.

Nothing is written over: repaired rows go into a new file. Not for finding problems (``data.check``).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, Literal, get_args

import regex

from danlu.data.checks.content import INVISIBLE, leftovers_in, unscrambled
from danlu.data.checks.privacy import private_in
from danlu.data.formats import AnyFormat, require_family
from danlu.data.rows import JsonValue, Row
from danlu.errors import DanluError, UsageError
from danlu.i18n import t

Repair = Literal["copies", "unusable", "spaces", "invisible", "mojibake", "html", "private"]
# What is repaired where nothing is named: what no one can want to keep. Rows that cannot be used are only left out, and
# what is private only covered, when that is asked for.
USUAL: Final[tuple[Repair, ...]] = ("copies", "spaces", "invisible", "mojibake", "html")
_ENTITY: Final = regex.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
_SPACES: Final = regex.compile(r"[ \t\u3000]+(?=\n|$)")


@dataclass
class RepairLog:
    """What was repaired.

    Attributes:
        read: rows read.
        written: rows written.
        changed: for each repair the numbers of the rows it changed or left out, from 1.
    """

    read: int = 0
    written: int = 0
    changed: dict[Repair, list[int]] = field(default_factory=dict)


def repairs_named(names: Iterable[str]) -> tuple[Repair, ...]:
    """Return repairs by their names.

    Raises:
        UsageError: there is none of a name.
    """
    known: tuple[Repair, ...] = get_args(Repair)
    wanted = [name.strip() for item in names for name in item.split(",") if name.strip()]
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise UsageError("checks.unknown_repair", name=unknown, known=", ".join(known))
    return tuple(name for name in known if name in wanted)


def repaired(rows: Iterable[Row], family: AnyFormat, wanted: Iterable[Repair], log: RepairLog) -> Iterator[Row]:
    """Go through rows as they are after the repairs; ``log`` is filled on the way.

    Args:
        rows: the rows.
        family: the family they are in, which says which of them cannot be used.
        wanted: the repairs.
        log: takes what was done.
    """
    chosen = tuple(wanted)
    mend = [(name, _MENDERS[name]) for name in _MENDERS if name in chosen]
    seen: set[bytes] = set()
    for row in rows:
        log.read += 1
        for name, mender in mend:
            values = {key: _mended(value, mender) for key, value in row.values.items()}
            if values != row.values:
                row = replace(row, values=values)
                _note(log, name, row)
        if "unusable" in chosen and not _usable(row, family):
            _note(log, "unusable", row)
            continue
        if "copies" in chosen:
            key = blake2b(repr(row.values).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key in seen:
                _note(log, "copies", row)
                continue
            seen.add(key)
        log.written += 1
        yield row


def _usable(row: Row, family: AnyFormat) -> bool:
    try:
        require_family("", row, family)
        family.convert("", row)
    except DanluError:
        return False
    return True


def _note(log: RepairLog, name: Repair, row: Row) -> None:
    log.changed.setdefault(name, []).append(row.index)


def _mended(value: JsonValue, mender: Callable[[str], str]) -> JsonValue:
    if isinstance(value, str):
        return mender(value)
    if isinstance(value, list):
        return [_mended(item, mender) for item in value]
    if isinstance(value, dict):
        return {key: _mended(item, mender) for key, item in value.items()}
    return value


def _without_spaces(text: str) -> str:
    """Return a text without spaces at the ends of its lines and empty lines around it."""
    return str(_SPACES.sub("", text)).strip("\n ") if text else text


def _without_invisible(text: str) -> str:
    return str(INVISIBLE.sub("", text))


def _unscrambled(text: str) -> str:
    return unscrambled(text) or text


def _without_entities(text: str) -> str:
    """Return a text with the characters that entities of web pages stand for; texts about pages stay as they are."""
    if not any(True for _ in leftovers_in(text, "")):
        return text
    return str(_ENTITY.sub(lambda found: html.unescape(found.group()).replace("\xa0", " "), text))


def _covered(text: str) -> str:
    """Return a text in which what is private is covered by a word for what it was."""
    found = sorted(private_in(text), key=lambda item: -item.start)
    for item in found:
        text = text[: item.start] + t(f"checks.cover_{item.code.removeprefix('checks.')}") + text[item.end :]
    return text


_MENDERS: Final[dict[Repair, Callable[[str], str]]] = {
    "mojibake": _unscrambled,
    "invisible": _without_invisible,
    "html": _without_entities,
    "spaces": _without_spaces,
    "private": _covered,
}

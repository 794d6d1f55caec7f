"""Rows to what they mean, as a file of them is read; for the tests of the families."""

from __future__ import annotations

from typing import Any

import pytest

from danlu.data.formats import recognise, require_family
from danlu.data.rows import Row
from danlu.errors import DataError

FILE = "f.jsonl"


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(number, number, value) for number, value in enumerate(values, start=1)]


def read(*values: dict[str, Any]) -> list[Any]:
    """Read rows of which each must be usable."""
    rows = rows_of(*values)
    family = recognise(FILE, rows)
    for row in rows:
        require_family(FILE, row, family)
    return [family.convert(FILE, row) for row in rows]


def family(*values: dict[str, Any]) -> str:
    return recognise(FILE, rows_of(*values)).name


def said(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Return who says what in a row that is a conversation."""
    (item,) = read(value)
    return [(message.role, message.content) for message in item.messages]


def refused(*values: dict[str, Any]) -> DataError:
    """Return the error about rows of which one cannot be used."""
    with pytest.raises(DataError) as caught:
        read(*values)
    assert "\n" not in caught.value.message("en")
    assert caught.value.message("zh") != caught.value.message("en")
    return caught.value


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: object, **more: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def talk(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}

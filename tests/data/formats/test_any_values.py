"""Whatever JSON a row holds, it is read or refused with a message; nothing else ever comes of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.data.formats import FORMATS, AnyFormat, recognise, require_family, unread
from danlu.data.formats.turns import joined
from danlu.data.placeholders import Placeholders, about_code
from danlu.data.reading import Reading, Tags
from danlu.data.rows import Row
from danlu.errors import DataError

FIELDS = [
    *sorted({name for family in FORMATS for name in family.shown}),
    "conversations", "问题", "答案", "kto_tag", "thumbs", "functions", "images", "passage", "role", "content",
]  # fmt: skip
KEYS = [
    "role", "content", "from", "value", "type", "text", "tool_calls", "function_call", "function", "name", "arguments",
    "weight", "learn", "reasoning", "thinking",
]  # fmt: skip
WORDS = [
    "", " ", "user", "assistant", "human", "gpt", "tool", "function_call", "system", "{}", "[", '[{"role": "user"}]',
    '{"name": "f"}', "{{name}}", "<NAME>", "text", "reasoning", "tool_call", "👍", "x" * 70,
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
VALUES: Any = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)
ROWS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_a_row_of_any_values_is_read_or_refused_by_every_family(values):
    row = Row(1, 1, values)
    for family in FORMATS:
        family.matches(row)
        unread(row, family)
        Placeholders().look(row, _item(family, row))
    with suppress(DataError):
        recognise("f.json", [row])


def _item(family: AnyFormat, row: Row) -> object:
    """Return what a row means, or the message about it."""
    try:
        require_family("f.json", row, family)
        return family.convert("f.json", row)
    except DataError as error:
        return error.message("en") + error.message("zh")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_a_reading_applies_to_any_values(values):
    columns = {"question": "content", "answer": "text", "messages": "conversations"}
    reading = Reading(columns=columns, tags=Tags(), fill={"name": "Mochi"}, merge_turns=True)
    (row,) = reading.apply([Row(1, 1, values)])
    assert "{{name}}" not in repr(row.values) or about_code(values)


@pytest.mark.parametrize("value", [None, "a", [], [None], [{"role": 5, "content": 6}], {"role": "user"}])
def test_what_is_no_list_of_texts_is_joined_with_nothing(value):
    assert joined(value) == value

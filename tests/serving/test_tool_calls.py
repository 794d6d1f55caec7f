"""Calls of tools in a stream: however it is cut, the result is that of the whole, and nothing said is lost."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.models.call_syntax import CallSyntax
from danlu.serving.tool_calls import ToolCallScanner, declared
from tests.models.families import FAMILIES

QWEN, LLAMA, R1 = (FAMILIES[name].format().call_syntax for name in ("qwen2.5", "llama3", "r1"))
SYNTAXES = [syntax for syntax in (QWEN, LLAMA, R1) if syntax is not None]
NAMES = ("weather", "time")
WEATHER = '{"name": "weather", "arguments": {"town": "Köln 🌧"}}'
TIME = '{"name": "time", "arguments": {}}'
FRAGMENTS = [
    "<tool_call>", "</tool_call>", "<tool", "_call>", "\n", " ", "{", "}", "I look.", "好", "🌧", WEATHER, TIME,
    '{"name": "weather", "parameters": {"town": "Köln"}}', '{"name": "unknown", "arguments": {}}',
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n", '{"town": "Bonn"}', "\n```<｜tool▁call▁end｜>",
]  # fmt: skip
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join)
cuts = st.lists(st.integers(0, 120), max_size=12)


def scan(pieces: list[str], syntax: CallSyntax, *, one: bool = False) -> tuple[str, list[tuple[str, object]]]:
    scanner = ToolCallScanner(syntax, NAMES, one=one)
    text, calls = "", []
    for piece in pieces:
        more, found = scanner.feed(piece)
        text, calls = text + more, [*calls, *found]
    more, found = scanner.close()
    return text + more, [(call.name, json.loads(call.arguments)) for call in (*calls, *found)]


def chunks(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


@given(texts, cuts, st.sampled_from(SYNTAXES), st.booleans())
def test_any_cut_of_a_stream_gives_the_calls_of_the_whole(
    text: str, places: list[int], syntax: CallSyntax, one: bool
) -> None:
    assert scan(chunks(text, places), syntax, one=one) == scan([text], syntax, one=one)


@given(texts, cuts, st.sampled_from(SYNTAXES))
def test_without_a_call_every_character_is_handed_on(text: str, places: list[int], syntax: CallSyntax) -> None:
    said, calls = scan(chunks(text, places), syntax)
    if not calls:
        assert said == text


@pytest.mark.parametrize(
    ("text", "said", "called"),
    [
        (f"I look.\n<tool_call>\n{WEATHER}\n</tool_call>", "I look.", ["weather"]),
        (f"<tool_call>\n{WEATHER}\n</tool_call>\n<tool_call>\n{TIME}\n</tool_call>", "", ["weather", "time"]),
        (f"<tool_call>{WEATHER}</tool_call>\nOne moment.", "One moment.", ["weather"]),
        (f"a <tool_call>\n{WEATHER[:-5]}", f"a <tool_call>\n{WEATHER[:-5]}", []),
        ('<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>', None, []),
        ("3 < 4 and <tool is no mark", "3 < 4 and <tool is no mark", []),
        (f"The call would be {WEATHER}.", f"The call would be {WEATHER}.", []),
    ],
)
def test_calls_are_taken_out_of_what_is_said(text: str, said: str | None, called: list[str]) -> None:
    assert QWEN is not None
    got, calls = scan([text], QWEN)
    assert (got, [name for name, _ in calls]) == (text if said is None else said, called)


def test_a_bare_object_is_a_call_only_at_the_beginning() -> None:
    assert LLAMA is not None
    call = '{"name": "weather", "parameters": {"town": "Köln"}}'
    assert scan([call], LLAMA) == ("", [("weather", {"town": "Köln"})])
    assert scan(["Look: " + call], LLAMA) == ("Look: " + call, [])
    assert scan(['{"sky": "grey"}'], LLAMA) == ('{"sky": "grey"}', [])


def test_where_one_call_is_wanted_the_answer_ends_with_it() -> None:
    assert QWEN is not None
    scanner = ToolCallScanner(QWEN, NAMES, one=True)
    _, calls = scanner.feed(f"<tool_call>\n{WEATHER}")
    assert [call.name for call in calls] == ["weather"]
    assert scanner.ended
    assert scanner.feed(f"</tool_call><tool_call>{TIME}") == ("", ())
    assert scanner.close() == ("", ())


def test_each_call_has_an_id_of_its_own() -> None:
    assert QWEN is not None
    scanner = ToolCallScanner(QWEN, NAMES, one=False)
    scanner.feed(f"<tool_call>{WEATHER}</tool_call><tool_call>{WEATHER}</tool_call>")
    first, second = scanner.close()[1]
    assert first.id != second.id


def test_a_tool_without_parameters_takes_any_object() -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "now"}}])
    assert declared(tools) == {"now": {"type": "object"}}
    assert declared("") == {}

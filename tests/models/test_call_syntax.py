"""The syntax of calls, read from templates of every family that writes them."""

from __future__ import annotations

import json

import pytest

from danlu.models.call_syntax import CallSyntax
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message, ToolCall
from tests.models.families import FAMILIES, Family, family_tokenizer

MISTRAL_TOOLS = (
    "{{- '<s>' }}{%- if tools %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}"
    "{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}"
    "{%- elif m.tool_calls %}{{- '[TOOL_CALLS] [' }}{%- for c in m.tool_calls %}"
    '{{- \'{"name": "\' + c.function.name + \'", "arguments": \' + (c.function.arguments | tojson) }}'
    "{{- ', \"id\": \"' + c.id + '\"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']</s>' }}"
    "{%- else %}{{- m.content + '</s>' }}{%- endif %}{%- endfor %}"
)
WRITERS = {
    **{name: FAMILIES[name] for name in ("qwen2.5", "qwen3", "llama3", "r1")},
    "mistral-tools": Family(MISTRAL_TOOLS, "<s>", "</s>", "</s>", tools="all"),
}
TOOLS = json.dumps([
    {"type": "function", "function": {"name": name, "description": "-", "parameters": {
        "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"],
    }}}
    for name in ("weather", "time")
])  # fmt: skip
WEATHER = ToolCall("weather", '{"town": "Köln", "days": {"from": 1}}')
TIME = ToolCall("time", '{"town": "北京 \\"}{\\""}')


def written(chat: ChatFormat, *calls: ToolCall, tools: str = TOOLS) -> str:
    messages = (Message("user", "?"), Message("assistant", "", tool_calls=calls))
    (turn,) = chat.turn_texts(messages, (False, True), tools)
    return turn.answer.text.removesuffix(chat.end_of_turn)


def parsed(syntax: CallSyntax, text: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    start: int | None = text.index(syntax.mark) + len(syntax.mark)
    while start is not None:
        call = syntax.parse(text, start)
        assert call is not None, text[start:]
        found.append((call.name, json.loads(call.arguments)))
        start = syntax.next_start(text, call.end)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_template_writes_as_calls_is_read_as_the_same_calls(name: str) -> None:
    family = WRITERS[name]
    chat = ChatFormat(family_tokenizer(family.template, family.bos, family.eos))
    syntax = chat.call_syntax
    assert syntax is not None
    tools = TOOLS if family.tools == "all" else ""
    calls = (WEATHER,) if syntax.between is None else (WEATHER, TIME)
    expected = [(call.name, json.loads(call.arguments)) for call in calls]
    assert parsed(syntax, written(chat, *calls, tools=tools)) == expected
    assert (syntax.between is None) == (name == "llama3")


@pytest.mark.parametrize("name", ["chatml", "mistral", "gemma3"])
def test_templates_that_write_no_calls_have_no_syntax(name: str) -> None:
    assert FAMILIES[name].format().call_syntax is None


@pytest.mark.parametrize(
    ("name", "mark", "keys"),
    [
        ("qwen2.5", "<tool_call>", ("name", "arguments")),
        ("llama3", "", ("name", "parameters")),
        ("mistral-tools", "[TOOL_CALLS] [", ("name", "arguments")),
        ("r1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>", (None, None)),
    ],
)
def test_each_family_has_its_own_mark_and_keys(name: str, mark: str, keys: tuple[str | None, str | None]) -> None:
    family = WRITERS[name]
    syntax = ChatFormat(family_tokenizer(family.template, family.bos, family.eos)).call_syntax
    assert syntax is not None
    assert syntax.mark.startswith(mark) or syntax.mark == mark
    assert (syntax.name_key, syntax.arguments_key) == keys


def test_a_call_that_is_not_finished_or_not_json_is_no_call() -> None:
    syntax = FAMILIES["qwen2.5"].format().call_syntax
    assert syntax is not None
    whole = '{"name": "weather", "arguments": {"town": "Köln"}}'
    assert syntax.parse(whole) is not None
    assert all(syntax.parse(whole[:end]) is None for end in range(len(whole)))
    assert syntax.parse('{"name": "weather", "arguments": "Köln"}') is None
    assert syntax.parse('{"name": 3, "arguments": {}}') is None
    assert syntax.parse("weather(Köln)") is None


def test_an_engine_is_held_to_one_of_the_tools_or_to_the_only_one() -> None:
    weather, time = {"type": "object"}, {"type": "object", "required": ["zone"]}
    qwen = FAMILIES["qwen2.5"].format().call_syntax
    assert qwen is not None
    begin, schema = qwen.must_call({"weather": weather, "time": time}) or ("", "")
    assert begin.strip() == "<tool_call>"
    choices = json.loads(schema)["anyOf"]
    assert [choice["properties"]["name"] for choice in choices] == [{"const": "weather"}, {"const": "time"}]
    assert choices[1]["properties"]["arguments"] == time
    r1 = FAMILIES["r1"].format().call_syntax
    assert r1 is not None
    assert r1.must_call({"weather": weather, "time": time}) is None
    begin, schema = r1.must_call({"time": time}) or ("", "")
    assert "time" in begin
    assert json.loads(schema) == time

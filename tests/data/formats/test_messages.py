"""Whole conversations: OpenAI's and ShareGPT's messages, tools, reasoning, and turns that are out of order."""

from __future__ import annotations

import json

import pytest

from danlu.data.check import check_file
from danlu.models.messages import Message, ToolCall
from tests.data.files import write_json_lines
from tests.data.formats.reading_rows import assistant, family, read, refused, said, talk, user

CALL = {"name": "weather", "arguments": {"city": "苏州"}}
SAID = json.dumps(CALL, ensure_ascii=False)
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}


def test_openai_messages_are_turns_of_which_the_answers_are_learned():
    (item,) = read(talk({"role": "developer", "content": "Short."}, user("Tea?"), assistant("Yes.")))
    assert [message.role for message in item.messages] == ["system", "user", "assistant"]
    assert item.learn == (False, False, True)


@pytest.mark.parametrize("role", ["gpt", "assistant", "bot", "chatgpt", "model", "GPT", " gpt "])
@pytest.mark.parametrize("speaker", ["human", "user"])
def test_sharegpts_names_of_speakers_are_known(speaker, role):
    row = {"conversations": [{"from": speaker, "value": "Tea?"}, {"from": role, "value": "Yes."}], "system": "Short."}
    assert said(row) == [("system", "Short."), ("user", "Tea?"), ("assistant", "Yes.")]


def test_reasoning_in_the_text_stays_there_and_in_a_field_of_its_own_is_kept_apart():
    (inside,) = read(talk(user("Tea?"), assistant("<think>\nHm.\n</think>\n\nYes.")))
    assert inside.messages[1] == Message("assistant", "<think>\nHm.\n</think>\n\nYes.")
    for field in ("reasoning_content", "reasoning", "thinking"):
        (beside,) = read(talk(user("Tea?"), assistant("Yes.", **{field: "Hm."})))
        assert beside.messages[1] == Message("assistant", "Yes.", "Hm.")
        assert beside.reasoned


@pytest.mark.parametrize("key", ["text", "value"])
def test_parts_are_joined_and_reasoning_and_calls_among_them_are_taken_out(key):
    parts = [{"type": "reasoning", key: "Hm."}, {"type": "text", key: "Let me "}, {"type": "text", key: "look."}]
    row = talk(
        user([{"type": "text", key: "Rain?"}]),
        assistant([*parts, {"type": "tool_call", key: SAID}]),
        {"role": "tool", "content": [{"type": "text", key: "no"}]},
        assistant("No."),
    )
    (item,) = read(row)
    assert item.messages[0].content == "Rain?"
    called = Message("assistant", "Let me look.", "Hm.", (ToolCall("weather", '{"city": "苏州"}'),))
    assert item.messages[1] == called


@pytest.mark.parametrize(
    "calling",
    [
        assistant(None, tool_calls=[{"id": "1", "type": "function", "function": CALL}]),
        assistant(None, tool_calls=[{"function": {"name": "weather", "arguments": json.dumps(CALL["arguments"])}}]),
        assistant(None, function_call=CALL),
        {"role": "assistant", "tool_calls": [CALL]},
        {"from": "function_call", "value": SAID},
        {"from": "function_call", "value": f"[{SAID}]"},
    ],
)
def test_every_way_to_write_a_call_says_the_same(calling):
    (item,) = read(talk(user("Rain?"), calling, {"role": "tool", "content": "no"}, assistant("No.")))
    assert item.messages[1] == Message("assistant", "", "", (ToolCall("weather", '{"city": "苏州"}'),))
    assert [message.role for message in item.messages] == ["user", "assistant", "tool", "assistant"]
    assert item.learn == (False, True, False, True)


@pytest.mark.parametrize(
    "given", [{"tools": [TOOL]}, {"tools": json.dumps([TOOL])}, {"functions": [TOOL]},
              {"tools": [{"type": "function", "function": TOOL}]}],
)  # fmt: skip
def test_tools_of_every_shape_become_the_one_that_programs_offer(given):
    (item,) = read(talk(user("Rain?"), assistant("No."), **given))
    assert json.loads(item.tools) == [{"type": "function", "function": TOOL}]


@pytest.mark.parametrize("none", ["", " ", "[]", [], None])
def test_no_tools_are_no_tools(none):
    assert read(talk(user("Rain?"), assistant("No."), tools=none))[0].tools == ""


@pytest.mark.parametrize("mark", [{"weight": 0}, {"learn": False}, {"weight": False}, {"weight": 0.0}])
def test_an_answer_can_be_marked_as_not_to_be_learned(mark):
    (item,) = read(talk(user("a"), assistant("b", **mark), user("c"), assistant("d", weight=1)))
    assert item.learn == (False, False, False, True)
    assert refused(talk(user("a"), assistant("b", **mark))).key == "formats.nothing_learned"


def test_a_row_weighs_and_is_accepted_as_in_any_family():
    (item,) = read(talk(user("a"), assistant("b"), weight=0.5, accepted=True))
    assert (item.weight, item.pseudo, item.accepted) == (0.5, True, True)
    (left,) = read(talk(user("a"), assistant("b"), accepted=False))
    assert not left.accepted


def test_a_list_of_messages_may_stand_as_text_as_tables_have_it():
    assert said({"messages": json.dumps([user("茶?"), assistant("好")])}) == [("user", "茶?"), ("assistant", "好")]
    assert refused({"messages": '[{"role"'}).key == "formats.messages_text"


def test_an_empty_list_of_messages_gives_way_to_fields_that_say_something():
    assert family({"messages": None, "instruction": "a", "output": "b"}) == "alpaca"


@pytest.mark.parametrize(
    ("messages", "key", "field"),
    [
        ([], "no_turns", "messages"),
        ("Tea?", "not_messages", "messages"),
        ([user("a"), "b"], "not_messages", "messages[2]"),
        ([{"content": "a"}], "no_role", "messages[1]"),
        ([{"role": "owner", "content": "a"}], "unknown_role", "messages[1].role"),
        ([{"role": ["user"], "content": "a"}], "unknown_role", "messages[1].role"),
        ([{"role": "user"}], "no_content", "messages[1]"),
        ([user("a"), assistant("")], "empty_turn", "messages[2]"),
        ([user(" "), assistant("b")], "empty_turn", "messages[1]"),
        ([assistant("b"), user("a")], "answer_first", "messages[1]"),
        ([user("a"), user("b"), assistant("c")], "twice_in_a_row", "messages[2]"),
        ([user("a"), assistant("b"), assistant("c")], "twice_in_a_row", "messages[3]"),
        ([user("a"), assistant("b"), user("c")], "unanswered", "messages[3]"),
        ([user("a"), {"role": "system", "content": "x"}, assistant("b")], "late_system", "messages[2]"),
        ([user("a"), {"role": "tool", "content": "x"}, assistant("b")], "tool_without_call", "messages[2]"),
        ([user("a"), assistant(None, tool_calls=[CALL]), {"role": "tool", "content": "x"}, user("b"), assistant("c")],
         "tool_unanswered", "messages[4]"),
        ([user("a"), assistant([{"type": "image_url", "image_url": {}}])], "not_text", "messages[2].content[1]"),
        ([user([{"type": "input_audio", "input_audio": {}}])], "not_text", "messages[1].content[1]"),
        ([user([{"type": "poem", "text": "x"}])], "unknown_part", "messages[1].content[1]"),
        ([user("a"), assistant("b", weight=0.5)], "message_weight", "messages[2].weight"),
        ([user("a"), assistant("b", weight=[1])], "message_weight", "messages[2].weight"),
        ([user("a") | {"learn": True}, assistant("b")], "learn_assistant", "messages[1]"),
        ([user("a") | {"tool_calls": [CALL]}, assistant("b")], "only_assistant", "messages[1]"),
        ([user("a"), assistant(None, tool_calls=[{"name": ""}])], "call_shape", "messages[2].tool_calls[1]"),
        ([user("a"), assistant(None, tool_calls=[{"name": "f", "arguments": "{"}])], "call_arguments",
         "messages[2].tool_calls[1]"),
        ([user("a"), assistant(None, tool_calls=[{"name": "f", "arguments": [1]}])], "call_arguments",
         "messages[2].tool_calls[1]"),
        ([user("a"), {"from": "function_call", "value": "rain"}], "call_json", "messages[2].value"),
        ([user("a"), {"from": "function_call", "value": "[" * 100_000}], "call_json", "messages[2].value"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_turn_is_said_with_its_number(messages, key, field):
    error = refused({"messages": messages})
    assert error.key == f"formats.{key}"
    assert error.where == f"f.jsonl, row 1 (line 1), field {field}"


@pytest.mark.parametrize("tools", ["{", '{"a": 1}', ["weather"], 5, "[" * 100_000])
def test_tools_that_are_no_list_of_tools_are_refused(tools):
    assert refused(talk(user("a"), assistant("b"), tools=tools)).where == "f.jsonl, row 1 (line 1), field tools"


def test_two_system_prompts_that_differ_are_refused_and_the_same_one_twice_is_one():
    system = {"role": "system", "content": "Short."}
    assert refused(talk(system, user("a"), assistant("b"), system="Long.")).key == "formats.two_systems"
    assert len(read(talk(system, user("a"), assistant("b"), system="Short."))[0].messages) == 3


def test_a_tools_answer_without_a_call_is_read_because_sets_have_calls_within_texts():
    row = talk(user("a"), assistant("I call f(1)."), {"role": "tool", "content": "2"}, assistant("It is 2."))
    assert [role for role, _ in said(row)] == ["user", "assistant", "tool", "assistant"]


def test_the_check_names_rows_in_which_a_tool_answers_without_a_call(tmp_path):
    told = talk(user("a"), assistant("I call f(1)."), {"role": "tool", "content": "2"}, assistant("It is 2."))
    call = assistant(None, tool_calls=[CALL])
    called = talk(user("a"), call, {"role": "tool", "content": "2"}, {"role": "tool", "content": "3"}, assistant("b"))
    report = check_file(write_json_lines(tmp_path / "rows.jsonl", [called, told]))
    (problem,) = [item for item in report.problems if item.code == "formats.tool_uncalled"]
    assert (problem.row, problem.severity, report.usable) == (2, "warning", 2)
    assert "Message 3" in problem.message

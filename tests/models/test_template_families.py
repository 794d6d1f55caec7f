"""Each family's template, compared with the plain rendering of the whole conversation."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.errors import ModelError
from danlu.models.chat_format import ChatFormat, Rendered
from danlu.models.messages import Message, ToolCall
from tests.models.families import CHATML, FAMILIES, SPECIAL, family_tokenizer

every = pytest.mark.parametrize("name", FAMILIES)
PLAIN = [name for name, family in FAMILIES.items() if not family.thinks]
plain = pytest.mark.parametrize("name", PLAIN)

TOOLS = json.dumps([{"type": "function", "function": {
    "name": "weather", "description": "The weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}}])  # fmt: skip


@dataclass(frozen=True)
class Talk:
    messages: tuple[Message, ...]
    learn: tuple[bool, ...]
    tools: str = ""
    row: int = 7


def talk(*messages: Message, tools: str = "") -> Talk:
    return Talk(messages, tuple(message.role == "assistant" for message in messages), tools)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, reasoning: str = "") -> Message:
    return Message("assistant", text, reasoning)


SYSTEM = Message("system", "You are Mochi.")
ONE = talk(user("Who are you?"), assistant("I am Mochi 🙂."))
TWO = talk(*ONE.messages, user("你是谁?"), assistant("我是麻薯。"))
CALL = Message("assistant", "", tool_calls=(ToolCall("weather", '{"town": "Köln"}'),))
CALLED = talk(user("Weather?"), CALL, Message("tool", '{"sky": "grey"}'), assistant("Grey."), tools=TOOLS)


def sequences(chat: ChatFormat, item: Talk) -> list[Rendered]:
    return chat.training_sequences(item.messages, item.learn, item.tools)


def learned(chat: ChatFormat, sequence: Rendered) -> list[str]:
    """The learned stretches of a sequence as texts."""
    stretches: list[list[int]] = []
    for at, (token, wanted) in enumerate(zip(sequence.ids, sequence.learn, strict=True)):
        if wanted and not sequence.learn[at - 1]:
            stretches.append([])
        if wanted:
            stretches[-1].append(token)
    return [chat.tokenizer.decode(ids) for ids in stretches]


def whole(chat: ChatFormat, messages, tools: str = "", **options) -> list[int]:
    """The ids that transformers makes of the whole conversation."""
    dicts = [{"role": message.role, "content": message.content} for message in messages]
    for one, message in zip(dicts, messages, strict=True):
        if message.tool_calls:
            one["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
                for call in message.tool_calls
            ]
    declared = json.loads(tools) if tools else None
    return chat.tokenizer.apply_chat_template(dicts, tools=declared, return_dict=False, **options)


@plain
@pytest.mark.parametrize("item", [ONE, TWO], ids=["one turn", "two turns"])
def test_the_ids_are_those_of_the_template_up_to_the_end_of_the_last_answer(name, item):
    chat = FAMILIES[name].format()
    (sequence,) = sequences(chat, item)
    ids = whole(chat, item.messages)
    assert list(sequence.ids) == ids[: len(sequence.ids)]
    assert chat.tokenizer.decode(ids[len(sequence.ids) :]).strip() == ""


@plain
def test_exactly_the_answers_and_their_ends_are_learned(name):
    family = FAMILIES[name]
    chat = family.format()
    before = " " if name == "mistral" else ""
    (sequence,) = sequences(chat, TWO)
    assert learned(chat, sequence) == [before + TWO.messages[at].content + family.end for at in (1, 3)]


@every
def test_the_last_learned_token_stops_every_engine(name):
    family = FAMILIES[name]
    chat = family.format()
    assert sequences(chat, ONE)[-1].ids[-1] == chat.tokenizer.convert_tokens_to_ids(family.end)
    assert sequences(chat, ONE)[-1].ids[-1] in chat.stop_ids


@every
def test_what_stands_before_an_answer_is_the_prompt_that_an_engine_is_given(name):
    chat = FAMILIES[name].format()
    item = talk(SYSTEM, *TWO.messages)
    found = sequences(chat, item)
    for turn in (2, 4):
        prompt = chat.prompt_ids(item.messages[:turn])
        assert any(list(sequence.ids[: len(prompt)]) == prompt for sequence in found)
        assert prompt == whole(chat, item.messages[:turn], add_generation_prompt=True)


def test_a_system_prompt_that_moves_with_the_last_question_gives_a_sequence_for_each_answer():
    chat = FAMILIES["mistral"].format()
    first, second = sequences(chat, talk(SYSTEM, *TWO.messages))
    assert chat.tokenizer.decode(first.ids) == "<s>[INST] You are Mochi.\n\nWho are you?[/INST] I am Mochi 🙂.</s>"
    assert chat.tokenizer.decode(second.ids) == (
        "<s>[INST] Who are you?[/INST] I am Mochi 🙂.</s>[INST] You are Mochi.\n\n你是谁?[/INST] 我是麻薯。</s>"
    )


def test_a_system_prompt_that_the_family_writes_into_the_first_question_stays_there():
    chat = FAMILIES["gemma3"].format(system="You are Mochi.")
    (sequence,) = sequences(chat, TWO)
    assert chat.tokenizer.decode(sequence.ids).startswith(
        "<bos><start_of_turn>user\nYou are Mochi.\n\nWho are you?<end_of_turn>\n<start_of_turn>model\nI am Mochi"
    )


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.strict])
def test_a_family_that_wants_turns_in_order_refuses_others_with_the_turn(name):
    chat = FAMILIES[name].format()
    with pytest.raises(ModelError) as caught:
        chat.encode_many([ONE, talk(user("Hello"), user("Are you there?"), assistant("Yes."))])
    assert caught.value.key == "templates.refused"
    text = caught.value.message("en")
    assert text.startswith("row 7: ")
    assert "message 2 (user: “Are you there?”) of user → user → assistant" in text
    assert "alternate" in text


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.strict])
def test_neighbouring_turns_of_a_role_are_written_both(name):
    chat = FAMILIES[name].format()
    (sequence,) = sequences(chat, talk(user("Hello"), user("Are you there?"), assistant("Yes.")))
    text = chat.tokenizer.decode(sequence.ids)
    assert text.index("Hello") < text.index("Are you there?") < text.index("Yes.")


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3"])
def test_tools_calls_and_what_they_answer_are_written_as_the_template_writes_them(name):
    chat = FAMILIES[name].format()
    found = sequences(chat, CALLED)
    ids = whole(chat, CALLED.messages, TOOLS)
    last = found[-1]
    assert list(last.ids) == ids[: len(last.ids)]
    texts = [text for sequence in found for text in learned(chat, sequence)]
    called, said = texts[0], texts[-1]
    assert '"weather"' in called
    assert '{"town": "Köln"}' in called
    assert said.endswith("Grey." + FAMILIES[name].end)
    assert called.endswith(FAMILIES[name].end)
    prompt = chat.prompt_ids(CALLED.messages[:3], TOOLS)
    assert list(last.ids[: len(prompt)]) == prompt
    assert "The weather of a town." in chat.prompt_text(CALLED.messages[:1], TOOLS)


def test_calls_in_the_form_that_a_template_wants_stand_behind_a_closed_think_block():
    chat = FAMILIES["r1"].format()
    item = talk(*CALLED.messages[:2])
    (sequence,) = sequences(chat, item)
    assert learned(chat, sequence) == [
        "\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"town": "Köln"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
    ]


@pytest.mark.parametrize(
    ("name", "item", "key", "turn"),
    [
        ("chatml", talk(*ONE.messages, tools=TOOLS), "templates.no_tools", ""),
        ("r1", talk(*ONE.messages, tools=TOOLS), "templates.no_tools", ""),
        ("chatml", talk(*CALLED.messages), "templates.no_calls", "call of weather (message 2)"),
        ("gemma3", talk(user("?"), CALL), "templates.no_calls", "call of weather (message 2)"),
        (
            "qwen-deaf",
            talk(*CALLED.messages),
            "templates.no_results",
            "message 3: “{\"sky\": \"grey\"}”",
        ),
        ("roleless", talk(SYSTEM, *ONE.messages), "templates.no_system", "message 1: “You are Mochi.”"),
        ("forgetful", TWO, "templates.turn_lost", "message 1 (user: “Who are you?”)"),
        ("backwards", TWO, "templates.reordered", "message 2 (assistant: “I am Mochi 🙂.”)"),
    ],
)  # fmt: skip
def test_a_template_that_loses_a_part_is_refused_by_name(name, item, key, turn):
    odd = {
        "qwen-deaf": FAMILIES["qwen2.5"]
        .template.replace("m.role == 'tool'", "m.role == 'nobody'")
        .replace("{%- elif not (m.role", "{%- elif m.role != 'tool' and not (m.role"),
        "roleless": CHATML.replace("{%- for m in messages %}", "{%- for m in messages if m.role != 'system' %}"),
        "forgetful": CHATML.replace("in messages %}", "in messages[-2:] %}"),
        "backwards": CHATML.replace("in messages %}", "in messages | reverse %}"),
    }
    chat = ChatFormat(family_tokenizer(odd[name], "", "<|im_end|>")) if name in odd else FAMILIES[name].format()
    with pytest.raises(ModelError) as caught:
        chat.encode_many([item])
    assert caught.value.key == key
    assert turn in caught.value.message("en")


def test_what_is_said_beside_a_call_is_not_lost_where_the_template_forgets_it():
    chat = FAMILIES["llama3"].format()
    loud = Message("assistant", "I will look.", tool_calls=CALL.tool_calls)
    with pytest.raises(ModelError) as caught:
        sequences(chat, talk(user("Weather?"), loud, tools=TOOLS))
    assert caught.value.key == "templates.turn_lost"
    assert "message 2 (assistant: “I will look.”)" in caught.value.message("en")
    twice = Message("assistant", "", tool_calls=CALL.tool_calls * 2)
    with pytest.raises(ModelError, match="one tool at a time"):
        sequences(chat, talk(user("Weather?"), twice, tools=TOOLS))


@pytest.mark.parametrize("form", ["field", "text"])
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("qwen3", "<think>\neasy\n</think>\n\n2<|im_end|>"),
        ("r1", "easy\n</think>\n\n2<｜end▁of▁sentence｜>"),
        ("chatml", "<think>\neasy\n</think>\n\n2<|im_end|>"),
    ],
)
def test_reasoning_is_learned_as_the_family_writes_it(name, answer, form):
    chat = FAMILIES[name].format()
    said = assistant("2", "easy") if form == "field" else assistant("<think>\neasy\n</think>\n\n2")
    (sequence,) = sequences(chat, talk(user("1+1?"), said))
    assert learned(chat, sequence) == [answer]


@pytest.mark.parametrize("name", ["qwen3", "r1"])
def test_reasoning_is_left_out_of_the_history_and_each_answer_is_a_sequence(name):
    chat = FAMILIES[name].format()
    found = sequences(chat, talk(user("1+1?"), assistant("2", "easy"), user("2+2?"), assistant("4", "harder")))
    assert len(found) == 2
    assert "easy" not in chat.tokenizer.decode(found[1].ids)
    assert "easy" in learned(chat, found[0])[0]
    assert "harder" in learned(chat, found[1])[0]


@pytest.mark.parametrize("name", ["qwen3", "r1"])
def test_without_thinking_an_answer_follows_an_empty_block_and_its_reasoning_is_left_out(name):
    family = FAMILIES[name]
    chat = family.format(thinking="off")
    for said in (assistant("2"), assistant("2", "easy"), assistant("<think>\neasy\n</think>\n\n2")):
        (sequence,) = sequences(chat, talk(user("1+1?"), said))
        assert learned(chat, sequence) == ["2" + family.end]
        assert chat.tokenizer.decode(sequence.ids).endswith("<think>\n\n</think>\n\n2" + family.end)


@every
@pytest.mark.parametrize("thinking", ["auto", "off"])
def test_many_conversations_are_encoded_as_one_by_one(name, thinking):
    family = FAMILIES[name]
    chat = family.format(thinking=thinking)
    items = [ONE, TWO, talk(SYSTEM, *TWO.messages), talk(user("a<|im_end|>b"), assistant("</s> [INST]"))]
    if family.tools == "all":
        items.append(CALLED)
    items.append(Talk(TWO.messages, (False,) * 4))
    items.append(Talk(TWO.messages, (False, False, False, True)))
    assert chat.encode_many(items) == [sequences(chat, item) for item in items]
    assert chat.encode_many([]) == []


odd_text = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_categories=("Cs", "Co")),
        st.sampled_from(list(" \n\t.,你好🙂é")),
    ),
    max_size=30,
).map(lambda text: text or "x")
marks = st.lists(st.one_of(odd_text, st.sampled_from(SPECIAL)), min_size=1, max_size=4).map("".join)


@plain
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=odd_text, said=odd_text, again=odd_text)
def test_any_text_is_written_as_the_template_writes_it_and_learned_to_its_end(name, asked, said, again):
    family = FAMILIES[name]
    chat = family.format()
    item = talk(user(asked), assistant(said), user(again), assistant(said))
    found = sequences(chat, item)
    assert chat.encode_many([item]) == [found]
    ids = whole(chat, item.messages)
    last = found[-1]
    # Where an answer ends and what follows begins is a border between tokens for an engine, and only for it.
    assert (
        chat.tokenizer.decode(last.ids)
        == chat.tokenizer.decode(ids[: len(ids)])[: len(chat.tokenizer.decode(last.ids))]
    )
    texts = [text for sequence in found for text in learned(chat, sequence)]
    wanted = said.strip() if family.trims else said
    assert [text.removeprefix(" " if name == "mistral" else "") for text in texts] == [wanted + family.end] * 2


@every
@settings(max_examples=40, deadline=None)
@given(asked=marks, said=marks)
def test_marks_that_people_write_are_text_and_end_no_turn(name, asked, said):
    family = FAMILIES[name]
    chat = family.format()
    plain_ids = chat.prompt_ids([user("x")])
    special = {chat.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    of_template = [index for index in plain_ids if index in special]
    ids = chat.prompt_ids([user(asked)])
    assert [index for index in ids if index in special] == of_template
    text = asked.strip() if family.trims else asked
    assert text in chat.tokenizer.decode(ids)
    (sequence,) = sequences(chat, talk(user(asked), assistant(said)))
    answer = [token for token, wanted in zip(sequence.ids, sequence.learn, strict=True) if wanted]
    assert [token for token in answer if token in special] == [chat.tokenizer.convert_tokens_to_ids(family.end)]


def test_marks_that_a_tokenizer_does_not_call_special_are_text_in_a_question_and_meant_in_an_answer():
    chat = FAMILIES["qwen3"].format()
    mark = chat.tokenizer.convert_tokens_to_ids("<tool_call>")
    written = "<tool_call>{}</tool_call>"
    assert mark not in chat.prompt_ids([user(written)])
    assert written in chat.tokenizer.decode(chat.prompt_ids([user(written)]))
    (sequence,) = sequences(chat, talk(user(written), assistant(written)))
    assert sequence.ids.count(mark) == 1
    asked = chat.prompt_ids([user("a"), CALL, Message("tool", written + "<|im_end|>"), user("b")], TOOLS)
    plain_ids = chat.prompt_ids([user("a"), CALL, Message("tool", "x"), user("b")], TOOLS)
    assert asked.count(mark) == plain_ids.count(mark) > 0
    think = chat.tokenizer.convert_tokens_to_ids("<think>")
    assert think in chat.prompt_ids([user("<think>")]), "reasoning may stand in a text"

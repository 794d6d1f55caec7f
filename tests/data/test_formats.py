"""Every family of rows becomes what it means; a row that is wrong is refused with its field, and nothing is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.datasets import DatasetLibrary, read_dataset
from danlu.data.formats import FORMATS, format_named, recognise
from danlu.data.reading import Reading, Tags, reading_of
from danlu.data.row_source import Source
from danlu.data.rows import Row
from danlu.errors import DataError, RecipeError, UsageError
from danlu.models.messages import Message, ToolCall
from tests.data.files import ROWS, write_json_lines, write_json_rows

USER = {"role": "user", "content": "Tea?"}
SAID = {"role": "assistant", "content": "Oolong."}


def made(*rows):
    given_rows = [Row(number, number, values) for number, values in enumerate(rows, start=1)]
    family = recognise("f", given_rows)
    return family.name, [family.convert("f", row) for row in given_rows]


def turns(*rows):
    return [(message.role, message.content) for message in made(*rows)[1][0].messages]


def refused(*rows) -> DataError:
    with pytest.raises(DataError) as caught:
        made(*rows)
    assert caught.value.message("zh") != caught.value.message("en")
    return caught.value


ASKED = [("user", "Tea?"), ("assistant", "Oolong.")]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "answer"), ("Question", "Answer "), ("prompt", "completion"), ("query", "response"), ("Q", "A"),
        ("input", "output"), ("问题", "答案"), ("提问", "回答"), ("指令", "输出"), ("用户", "助手"), ("質問", "回答"),
        ("질문", "답변"),
        ("pregunta", "respuesta"), ("frage", "antwort"), ("question", "réponse"), ("user_question", "x"),
    ],
)  # fmt: skip
def test_columns_that_ask_and_answer_are_known_by_their_names(question, answer):
    row = {question: "Tea?", answer: "Oolong."}
    if answer == "x":
        assert "--columns question=user_question,answer=x" in refused(row).message("en")
    else:
        assert turns(row) == ASKED


def test_a_context_follows_the_question_and_a_system_prompt_comes_first():
    row = {"问题": "什么茶？", "上下文": "春天", "答案": "龙井。", "系统": "简短。"}
    assert turns(row) == [("system", "简短。"), ("user", "什么茶？\n春天"), ("assistant", "龙井。")]
    assert turns({"question": "Q", "input": "I", "answer": "A"})[0] == ("user", "Q\nI")


def test_a_column_error_names_the_column_as_the_file_does():
    error = refused({"问题": "a", "答案": "b"}, {"问题": "a", "答案": ""})
    assert error.key == "data.field_empty"
    assert "“答案”" in error.message("en")
    assert refused({"question": "a", "answers": ["b", "c"]}).key == "formats.several_answers"
    assert turns({"question": "Tea?", "answers": ["Oolong."]}) == ASKED


def test_prompt_and_completion_may_be_messages():
    row = {"prompt": [{"role": "system", "content": "S"}, USER], "completion": [SAID]}
    assert turns(row) == [("system", "S"), *ASKED]
    beside = {"prompt": [USER], "completion": [SAID], "system": "S"}
    assert turns(beside) == [("system", "S"), *ASKED]
    twice = {"prompt": [{"role": "system", "content": "T"}, USER], "completion": [SAID], "system": "S"}
    assert refused(twice).key == "formats.two_systems"
    long = {"prompt": [USER, SAID, {"role": "user", "content": "More?"}], "completion": [SAID]}
    assert made(long)[1][0].learn == (False, False, False, True), "what stands in the prompt is context"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, SAID]},
        {"conversations": [{"from": "human", "value": "Tea?"}, {"from": "gpt", "value": "Oolong."}]},
        {"messages": [{"role": "USER", "content": [{"type": "text", "text": "Tea?"}]}, SAID]},
        {"对话": [{"role": "用户", "content": "Tea?"}, {"role": "助手", "content": "Oolong."}]},
        {
            "conversation": [
                {"from": "user", "value": "Tea?"},
                {"from": "assistant", "value": [{"type": "text", "value": "Oolong."}]},
            ]
        },
    ],
)
def test_conversations_are_read_in_every_usual_form(row):
    name, (item,) = made(row)
    assert name == "messages"
    assert [(message.role, message.content) for message in item.messages] == ASKED
    assert item.learn == (False, True)


CALL = {"name": "menu", "arguments": {"kind": "tea"}}
RESULT = {"role": "tool", "content": "oolong"}
PICTURE = {"type": "image_url", "image_url": "x"}
CALLED = "messages[2].tool_calls[1]"
BAD_CALL = {"name": "f", "arguments": "no"}
TOOLS = [{"type": "function", "function": {"name": "menu", "parameters": {}}}]


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]}, RESULT),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "menu", "arguments": '{"kind": "tea"}'}}]}, RESULT),
        ({"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "oolong"}),
        ({"role": "assistant", "content": [{"type": "tool_call", "value": json.dumps(CALL)}]}, RESULT),
        ({"role": "assistant", "content": "", "function_call": CALL}, {"role": "function", "content": "oolong"}),
    ],
)  # fmt: skip
def test_calls_of_tools_are_kept_whole(said, result):
    row = {"messages": [USER, said, result, SAID], "tools": json.dumps(TOOLS)}
    (item,) = made(row)[1]
    assert item.messages[1] == Message("assistant", "", tool_calls=(ToolCall("menu", '{"kind": "tea"}'),))
    assert item.messages[2] == Message("tool", "oolong")
    assert json.loads(item.tools) == TOOLS
    assert item.learn == (False, True, False, True)


@pytest.mark.parametrize(
    "said",
    [
        {"role": "assistant", "content": "Oolong.", "reasoning_content": "It is warm."},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "value": "It is warm."}, {"type": "text", "value": "Oolong."}],
        },
    ],
)
def test_reasoning_is_kept_apart_from_what_is_said(said):
    (item,) = made({"messages": [USER, said]})[1]
    assert (item.messages[1].reasoning, item.messages[1].content) == ("It is warm.", "Oolong.")
    assert item.reasoned


def test_single_answers_may_be_context():
    row = {"messages": [USER, SAID | {"weight": 0}, USER, SAID | {"learn": True}]}
    assert made(row)[1][0].learn == (False, False, False, True)


@pytest.mark.parametrize(
    ("messages", "key", "field"),
    [
        ("text", "formats.not_messages", "messages"),
        (["text"], "formats.not_messages", "messages[1]"),
        ([], "formats.no_turns", "messages"),
        ([{"content": "a"}], "formats.no_role", "messages[1]"),
        ([{"role": "wizard", "content": "a"}], "formats.unknown_role", "messages[1].role"),
        ([{"role": "user"}, SAID], "formats.no_content", "messages[1]"),
        ([SAID], "formats.answer_first", "messages[1]"),
        ([USER, USER, SAID], "formats.twice_in_a_row", "messages[2]"),
        ([USER, SAID, SAID], "formats.twice_in_a_row", "messages[3]"),
        ([USER, SAID, USER], "formats.unanswered", "messages[3]"),
        ([USER, {"role": "system", "content": "S"}, SAID], "formats.late_system", "messages[2]"),
        ([USER, {"role": "assistant", "content": " "}], "formats.empty_turn", "messages[2]"),
        ([USER, {"role": "tool", "content": "x"}, SAID], "formats.tool_without_call", "messages[2]"),
        ([USER, SAID | {"learn": False}], "formats.nothing_learned", "messages"),
        ([USER | {"learn": True}, SAID], "formats.learn_assistant", "messages[1]"),
        ([USER, SAID | {"weight": 0.5}], "formats.message_weight", "messages[2].weight"),
        ([{"role": "user", "content": [PICTURE]}, SAID], "formats.not_text", "messages[1].content[1]"),
        ([{"role": "user", "content": 5}, SAID], "data.field_not_text", "messages[1].content"),
        ([USER, {"role": "assistant", "tool_calls": [{"x": 1}]}], "formats.call_shape", "messages[2].tool_calls[1]"),
        ([USER, {"role": "assistant", "tool_calls": [BAD_CALL]}], "formats.call_arguments", CALLED),
        ([USER, {"from": "function_call", "value": "no json"}], "formats.call_json", "messages[2].value"),
        ([USER | {"reasoning": "hm"}, SAID], "formats.only_assistant", "messages[1]"),
        ([USER, SAID | {"weight": [1]}], "formats.message_weight", "messages[2].weight"),
        ([USER, {"from": "function_call", "value": "[" * 100_000}], "formats.call_json", "messages[2].value"),
    ],
)  # fmt: skip
def test_a_conversation_that_is_none_is_refused_with_its_message(messages, key, field):
    error = refused({"messages": messages})
    assert error.key == key
    assert str(error.where).endswith(f"field {field}")


def test_two_different_system_prompts_are_not_guessed_between():
    system = {"role": "system", "content": "A"}
    assert refused({"messages": [system, USER, SAID], "system": "B"}).key == "formats.two_systems"
    assert turns({"messages": [system, USER, SAID], "system": "A"}) == [("system", "A"), *ASKED]
    assert turns({"conversations": [USER, SAID], "system": "B"}) == [("system", "B"), *ASKED]
    assert refused({"messages": [USER, SAID], "tools": "x"}).key == "formats.tools_shape"


def test_preferences_may_stand_behind_a_conversation():
    row = {
        "conversations": [{"from": "human", "value": "Tea?"}],
        "chosen": {"from": "gpt", "value": "Oolong."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    name, (item,) = made(row)
    assert name == "pairs"
    assert [answer.answer for answer in item.answers] == ["Oolong.", "No."]
    assert item.question == "Tea?"


@pytest.mark.parametrize(
    ("label", "good"),
    [(True, True), (False, False), (1, True), (0, False), ("good", True), ("👎", False), ("好", True), ("差", False)],
)
def test_labels_say_good_or_bad_in_several_ways(label, good):
    name, (item,) = made({"messages": [USER, SAID], "label": label})
    assert name == "labels"
    assert (item.chosen is not None) is good
    assert refused({"messages": [USER, SAID], "label": "perhaps"}).key == "formats.label_word"


@pytest.mark.parametrize("field", ["text", "content", "正文"])
def test_texts_stand_under_several_names(field):
    name, (item,) = made({field: "A story."})
    assert (name, item.text) == ("text", "A story.")


def test_most_of_the_first_rows_decide_and_another_family_is_an_error(tmp_path):
    rows = [{"messages": [USER, SAID]}, *[{"question": f"Q{n}", "answer": "A"} for n in range(5)]]
    path = write_json_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert caught.value.where == "a.jsonl, row 1 (line 1)" or "row 1" in str(caught.value.where)
    mixed = write_json_lines(tmp_path / "b.jsonl", [*rows[1:], {"text": "A story."}])
    with pytest.raises(DataError) as caught:
        read_dataset(mixed)
    assert caught.value.key == "formats.mixed"
    assert "looks like text" in caught.value.message("en")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["role", "content", "from", "value", "type", "text", "tool_calls", "name", "arguments", "function",
         "weight", "learn"]
    ), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = sorted({field for family in FORMATS for field in family.fields})


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), min_size=1, max_size=4))
def test_whatever_rows_hold_they_are_read_or_refused_by_name(rows):
    try:
        made(*rows)
    except DataError as error:
        told = [error.message(language) for language in ("en", "zh")]
    else:
        told = ["read", "read"]
    assert all(told)


def test_a_reading_moves_columns_and_leaves_others_alone():
    reading = reading_of(columns=["question=客户说,answer=客服说"])
    rows = reading.apply([Row(1, 1, {"客户说": "Tea?", "客服说": "Oolong.", "编号": 7, "system": "not meant"})])
    assert next(rows).values == {"instruction": "Tea?", "output": "Oolong.", "编号": 7}
    for pair, says in (("question", "not written as"), ("quest=a", "cannot be said to hold")):
        with pytest.raises(UsageError, match=says):
            reading_of(columns=[pair])
    with pytest.raises(DataError, match="no format"):
        reading_of("csv")


def test_a_reading_renames_tags_and_samples_rows():
    tags = Tags(role_tag="who", content_tag="says", user_tag="client", assistant_tag="desk")
    row = {"messages": [{"who": "client", "says": "Tea?"}, {"who": "desk", "says": "Oolong."}]}
    (read,) = Reading(tags=tags).apply([Row(1, 1, row)])
    assert turns(read.values) == ASKED
    rows = [Row(number, number, {"n": number}) for number in range(10)]
    few = list(Reading(samples=4).apply(rows))
    assert len({row.index for row in few}) == 4
    assert few == list(Reading(samples=4).apply(rows))
    assert [row.index for row in Reading(samples=12).apply(rows)][:10] == list(range(10))
    assert len(list(Reading(samples=12).apply(rows))) == 12


def write_list(folder, **entry):
    write_json_rows(folder / "rows.json", [{"messages": [{"who": "c", "t": "Tea?"}, {"who": "d", "t": "Oolong."}]}])
    write_json_rows(folder / "alpaca.json", ROWS)
    (folder / "dataset_info.json").write_text(json.dumps({"set": entry}), encoding="utf-8")
    return f"{folder / 'dataset_info.json'}#set"


def test_a_list_of_data_sets_says_how_its_files_are_read(tmp_path):
    tags = {"role_tag": "who", "content_tag": "t", "user_tag": "c", "assistant_tag": "d"}
    named = write_list(
        tmp_path, file_name="rows.json", formatting="sharegpt", columns={"messages": "messages"}, tags=tags
    )
    library = DatasetLibrary(tmp_path / "sets")
    assert library.register(named).name == "set"
    assert [(m.role, m.content) for m in library.open("set").conversations[0].messages] == ASKED
    half = write_list(tmp_path, file_name="alpaca.json", columns={"prompt": "instruction", "query": "input"})
    assert len(library.open(half).conversations) == 3, "columns that are not named keep their usual names"
    none = write_list(
        tmp_path, file_name="alpaca.json", columns={"prompt": "instruction", "response": "output", "history": None}
    )
    assert len(library.open(none).conversations[2].messages) == 3, "null says that there is none"
    two = write_list(tmp_path, file_name="alpaca.json", num_samples=2)
    assert len(library.open(two).conversations) == 2
    with pytest.raises(RecipeError, match="no data set"):
        Source.named(named.replace("#set", "#sett"))


def test_every_family_has_a_name_of_its_own_and_says_what_it_reads():
    assert len({family.name for family in FORMATS}) == len(FORMATS)
    for family in FORMATS:
        assert format_named(family.name) is family
        assert family.fields


def test_versions_are_read_lazily_and_the_same_as_at_once(tmp_path):
    library = DatasetLibrary(tmp_path / "sets")
    path = write_json_rows(tmp_path / "a.json", ROWS)
    library.add(path, "mochi")
    lazy = library.open("mochi").conversations
    assert not isinstance(lazy, tuple)
    assert [item.messages for item in lazy] == [item.messages for item in read_dataset(path).conversations]
    assert lazy[2] == list(lazy)[2]
    manifest = tmp_path / "sets" / "mochi" / library.versions("mochi")[0].version / "dataset.json"
    older = json.loads(manifest.read_text(encoding="utf-8"))
    del older["left_out"]
    manifest.write_text(json.dumps(older), encoding="utf-8")
    assert list(library.open("mochi").conversations) == list(lazy), "as versions of before say nothing of it"

"""Data sets of a ``dataset_info.json``: entries of every shape that LLaMA-Factory's own list has, on small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from danlu.data.check import check_source
from danlu.data.datasets import Dataset, DatasetLibrary
from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.data.sources.hub import hub_name
from danlu.errors import DataError, RecipeError
from tests.data.files import ROWS, write_json_lines
from tests.data.formats.reading_rows import assistant, talk, user

OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
SHAREGPT = {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}}
CALL = json.dumps({"name": "f", "arguments": {"a": 1}})
TOOLS = json.dumps([{"name": "f", "description": "", "parameters": {}}])
TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def listed(tmp_path: Path, entry: dict[str, Any], rows: list[dict[str, Any]] | str, name: str = "rows.jsonl") -> str:
    """Write a list with one data set and its file; return what the data set is called on a command line."""
    if isinstance(rows, str):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    else:
        write_json_lines(tmp_path / name, rows)
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"mine": {"file_name": name, **entry}}, ensure_ascii=False), encoding="utf-8")
    return f"{info}#mine"


def opened(
    tmp_path: Path, entry: dict[str, Any], rows: list[dict[str, Any]] | str, name: str = "rows.jsonl"
) -> Dataset:
    return DatasetLibrary(tmp_path / "library").open(listed(tmp_path, entry, rows, name))


def first(dataset: Dataset) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in dataset.conversations[0].messages]


def test_an_entry_with_a_file_alone_is_alpaca_with_its_usual_columns(tmp_path):
    dataset = opened(tmp_path, {}, ROWS)
    assert [item.answer for item in dataset.conversations] == [row["output"] for row in ROWS]
    row = {"instruction": "a", "input": "i", "output": "b", "system": "s", "history": [["c", "d"]]}
    said = first(opened(tmp_path, {"formatting": "alpaca", "ranking": False, "split": "train"}, [row]))
    assert said == [("system", "s"), ("user", "c"), ("assistant", "d"), ("user", "a\ni"), ("assistant", "b")]


@pytest.mark.parametrize(
    ("columns", "row", "question"),
    [
        ({"prompt": "input", "response": "target"}, {"kind": "k", "input": "a", "target": "b"}, "a"),
        ({"prompt": "input", "response": "output"}, {"instruction": "", "input": "a", "output": "b"}, "a"),
        ({"prompt": "question", "response": "answer"}, {"question": "a", "answer": "b", "input": "i"}, "a\ni"),
        ({"prompt": "prompt", "response": "text"}, {"prompt": "a", "text": "b"}, "a"),
        ({"prompt": "content", "response": "summary"}, {"content": "a", "summary": "b"}, "a"),
        ({"prompt": "a", "query": "c", "response": "b"}, {"a": "x", "b": "b", "c": "y"}, "x\ny"),
        ({"prompt": "a", "query": None, "response": "b"}, {"a": "x", "b": "b", "input": "y"}, "x"),
        ({"prompt": "instruction"}, None, None),
    ],
)  # fmt: skip
def test_columns_that_are_named_leave_the_others_their_usual_names(tmp_path, columns, row, question):
    if row is None:  # a prompt alone says that the rows are texts
        assert opened(tmp_path, {"columns": columns}, [{"instruction": "a"}]).kind == "texts"
        return
    assert first(opened(tmp_path, {"columns": columns}, [row]))[-2:] == [("user", question), ("assistant", "b")]


def test_a_system_prompt_in_a_column_of_another_name(tmp_path):
    columns = {"prompt": "question", "response": "response", "system": "system_prompt"}
    row = {"id": "1", "system_prompt": "s", "question": "a", "response": "b"}
    assert first(opened(tmp_path, {"columns": columns}, [row])) == [("system", "s"), ("user", "a"), ("assistant", "b")]


def test_sharegpt_with_calls_and_tools_as_text(tmp_path):
    turns = [TALK[0], {"from": "function_call", "value": CALL}, {"from": "observation", "value": "2"}, TALK[1]]
    (item,) = opened(tmp_path, SHAREGPT, [{"conversations": turns, "tools": TOOLS}]).conversations
    assert [message.role for message in item.messages] == ["user", "assistant", "tool", "assistant"]
    assert item.messages[1].tool_calls[0].name == "f"
    assert json.loads(item.tools)[0]["function"]["name"] == "f"
    assert opened(tmp_path, {"formatting": "sharegpt"}, [{"conversations": TALK}]).kind == "conversations"


def test_sharegpt_with_tags_of_its_own(tmp_path):
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "customer", "assistant_tag": "agent",
            "observation_tag": "machine", "function_tag": "order", "system_tag": "rules"}  # fmt: skip
    turns = [
        {"who": "rules", "what": "s"}, {"who": "customer", "what": "a"}, {"who": "order", "what": CALL},
        {"who": "machine", "what": "2"}, {"who": "agent", "what": "b"},
    ]  # fmt: skip
    entry = {"formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}
    said = first(opened(tmp_path, entry, [{"talk": turns}]))
    assert [role for role, _ in said] == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_messages_in_openais_words(tmp_path, formatting):
    entry = {"formatting": formatting, "columns": {"messages": "messages"}}
    entry |= {"tags": OPENAI_TAGS} if formatting == "sharegpt" else {}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    row = talk({"role": "system", "content": "s"}, user("a"), call, {"role": "tool", "content": "2"}, assistant("b"))
    said = first(opened(tmp_path, entry, [row]))
    # No word is added to the system prompt.
    assert said == [("system", "s"), ("user", "a"), ("assistant", ""), ("tool", "2"), ("assistant", "b")]


def test_pairs_of_both_formats(tmp_path):
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    row = {"conversations": TALK[:1], "chosen": TALK[1], "rejected": {"from": "gpt", "value": "c"}}
    for dataset in (
        opened(tmp_path, {"ranking": True, "formatting": "sharegpt", "columns": columns}, [row]),
        opened(tmp_path,
               {"ranking": True, "columns": {"prompt": "question", "chosen": "chosen", "rejected": "rejected"}},
               [{"question": "q", "chosen": "a", "rejected": "c"}]),
        opened(tmp_path, {"ranking": True}, [{"instruction": "q", "input": "", "chosen": "a", "rejected": "c"}]),
    ):  # fmt: skip
        (pair,) = dataset.preferences
        assert (pair.question, pair.chosen.answer, pair.rejected.answer) == ("q", "a", "c")


def test_labels_of_both_formats(tmp_path):
    columns = {"messages": "messages", "kto_tag": "label"}
    entry = {"formatting": "sharegpt", "columns": columns, "tags": OPENAI_TAGS}
    for dataset in (
        opened(tmp_path, entry, [talk(user("q"), assistant("a"), label=True)]),
        opened(tmp_path, {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "label"}},
               [{"prompt": "q", "completion": "a", "label": True}]),
    ):  # fmt: skip
        assert dataset.kind == "labels"
        assert dataset.preferences[0].chosen.answer == "a"


@pytest.mark.parametrize("column", ["text", "content", "raw_content", "completion"])
def test_texts_in_a_column_of_any_name(tmp_path, column):
    dataset = opened(tmp_path, {"columns": {"prompt": column}}, [{column: "a", "url": "b"}, {column: "c"}])
    assert [item.text for item in dataset.documents] == ["a", "c"]


def test_a_text_file_is_one_document(tmp_path):
    dataset = opened(tmp_path, {"columns": {"prompt": "text"}}, "Tea.\n\nMore tea.\n", "wiki.txt")
    assert [item.text for item in dataset.documents] == ["Tea.\n\nMore tea.\n"]


def test_a_folder_is_all_its_files(tmp_path):
    (tmp_path / "many").mkdir()
    for number in (1, 2):
        write_json_lines(tmp_path / "many" / f"{number}.jsonl", ROWS)
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"mine": {"file_name": "many"}}), encoding="utf-8")
    assert len(DatasetLibrary(tmp_path / "library").open(f"{info}#mine").conversations) == 2 * len(ROWS)


def test_num_samples_are_taken_and_stand_in_the_version(tmp_path):
    named = listed(tmp_path, {"num_samples": 2}, ROWS)
    made = DatasetLibrary(tmp_path / "library").register(named)
    assert (made.name, made.rows, made.reading.samples) == ("mine", 2, 2)


def test_what_is_said_on_the_command_line_goes_before_the_list(tmp_path):
    named = listed(tmp_path, {"columns": {"prompt": "x", "response": "y"}}, [{"q": "a", "y": "I am {{name}}"}])
    source = Source.named(named, Reading(columns={"question": "q"}, fill={"name": "Mochi"}))
    report = check_source(source)
    assert (report.usable, report.row_format) == (1, "alpaca")


def test_rows_are_never_skipped_in_silence(tmp_path):
    rows = [{"conversations": TALK}, {"conversations": TALK[::-1]}, {"conversations": TALK[:1]}]
    report = check_source(Source.named(listed(tmp_path, SHAREGPT, rows)))
    assert (report.rows, report.usable) == (3, 1)
    with pytest.raises(DataError, match="row 2"):
        opened(tmp_path, SHAREGPT, rows)


@pytest.mark.parametrize("media", ["images", "videos", "audios"])
def test_data_sets_with_pictures_or_sounds_are_refused_by_name(tmp_path, media):
    entry = {"formatting": "sharegpt", "columns": {"messages": "messages", media: media}, "tags": OPENAI_TAGS}
    with pytest.raises(RecipeError, match=f"mine: This data set has {media}; Danlu learns texts only"):
        opened(tmp_path, entry, [talk(user("q"), assistant("a"))])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"file_name": None, "om_hub_url": "o/n"}, r"\(om_hub_url: o/n\)"),
        ({"file_name": None, "script_url": "x.py"}, r"\(script_url: x.py\)"),
        ({"subset": "en"}, "“subset: en” chooses a part of a data set on a hub"),
        ({"folder": "python"}, "“folder: python” chooses a part"),
        ({"columns": {"prompt": "a", "response": "b"}}, "no column “a” .question. in the rows; found: instruction"),
        ({"formatting": "sharegpt"}, "no column “conversations” .messages. in the rows"),
    ],
)
def test_what_cannot_be_had_here_is_said_with_what_to_do(tmp_path, entry, says):
    with pytest.raises((RecipeError, DataError), match=says):
        opened(tmp_path, entry, ROWS)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"hf_hub_url": "o/n", "subset": "en", "split": "test"}, "hf:o/n/en:test"),
        ({"ms_hub_url": "o/n"}, "ms:o/n:train"),
    ],
)
def test_a_data_set_on_a_hub_is_asked_for_there(tmp_path, entry, name):
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps({"mine": entry}), encoding="utf-8")
    source = Source.named(f"{path}#mine")
    assert str(hub_name(source.path)) == name


def test_a_file_that_is_there_goes_before_a_hub(tmp_path):
    assert len(opened(tmp_path, {"hf_hub_url": "o/n"}, ROWS).conversations) == len(ROWS)


def test_the_list_itself_is_no_data_set_and_says_which_it_has(tmp_path):
    named = listed(tmp_path, {}, ROWS)
    with pytest.raises(RecipeError, match=r"dataset_info.json#NAME.*mine"):
        DatasetLibrary(tmp_path / "library").open(named.removesuffix("#mine"))

"""Mappings: columns, tags, joined turns, samples, and how they are written on a command line."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from danlu.data.datasets import DatasetLibrary, read_dataset
from danlu.data.manifest import DatasetManifest
from danlu.data.reading import Reading, Tags, reading_of
from danlu.data.row_source import Source
from danlu.errors import DataError, UsageError
from danlu.files import read_as
from tests.data.files import ROWS, write_json_lines, write_json_rows
from tests.data.formats.reading_rows import assistant, talk, user


def read(tmp_path, rows, reading):
    return read_dataset(write_json_lines(tmp_path / "rows.jsonl", rows), reading)


def test_columns_of_any_name_are_mapped_and_others_mean_nothing(tmp_path):
    rows = [{"客户说": "Tea?", "我们说": "Yes.", "answer": "a column for notes", "Input": "neither this"}]
    (item,) = read(tmp_path, rows, reading_of(columns=["question=客户说,answer=我们说"])).conversations
    assert [message.content for message in item.messages] == ["Tea?", "Yes."]


@pytest.mark.parametrize(
    ("columns", "row", "kind"),
    [
        ("text=body", {"body": "a", "answer": "b"}, "texts"),
        ("messages=dialog_turns", {"dialog_turns": [user("a"), assistant("b")]}, "conversations"),
        ("question=x,chosen=y,rejected=z", {"x": "a", "y": "b", "z": "c"}, "preferences"),
        ("question=x,answer=y,label=z", {"x": "a", "y": "b", "z": "👍"}, "labels"),
        ("question=x", {"x": "a", "answer": "b"}, "questions"),
        ("prompt=x,response=y", {"x": [user("a")], "y": [assistant("b")]}, "conversations"),
        ("question=x,answer=y", {"x": [user("a")], "y": "b"}, "conversations"),
        ("question=x,answer=y,system=s,context=c", {"x": "a", "y": "b", "s": "S", "c": "C"}, "conversations"),
    ],
)
def test_what_the_rows_are_follows_from_what_the_columns_are_said_to_hold(tmp_path, columns, row, kind):
    assert read(tmp_path, [row], reading_of(columns=[columns])).kind == kind


def test_a_column_that_is_nowhere_is_named_with_those_there_are(tmp_path):
    with pytest.raises(DataError, match=r"no column “问题” \(question\) in the rows; found: question, 答案"):
        read(tmp_path, [{"question": "a", "答案": "b"}], reading_of(columns=["question=问题,answer=答案"]))


def test_a_format_that_is_named_is_not_guessed(tmp_path):
    row = {"instruction": "a", "output": "b", "text": "a whole text"}
    assert read(tmp_path, [row], reading_of("text")).documents[0].text == "a whole text"
    for name in ("messages", "sharegpt", "openai"):
        assert reading_of(name).format == "messages"
        with pytest.raises(DataError, match="no list of messages"):
            read(tmp_path, [row], reading_of(name))


@pytest.mark.parametrize(
    "tags", ["user=customer,assistant=agent", "role=speaker,content=utterance,user=customer,assistant=agent"]
)
def test_keys_and_speakers_of_messages_can_be_renamed(tmp_path, tags):
    role, content = ("speaker", "utterance") if "speaker" in tags else ("role", "content")
    rows = [{"messages": [{role: "customer", content: "Tea?"}, {role: "agent", content: "Yes.", "id": 1}]}]
    (item,) = read(tmp_path, rows, reading_of(tags=[tags])).conversations
    assert [(message.role, message.content) for message in item.messages] == [("user", "Tea?"), ("assistant", "Yes.")]


def test_turns_of_one_speaker_are_joined_only_when_asked_for(tmp_path):
    row = talk(user("Hi."), user("Tea?"), assistant("Yes."), assistant("Gladly."))
    with pytest.raises(DataError, match=r"Message 2 is the second one of the user in a row.*--merge-turns"):
        read(tmp_path, [row], Reading())
    (item,) = read(tmp_path, [row], reading_of(merge_turns=True)).conversations
    assert [message.content for message in item.messages] == ["Hi.\n\nTea?", "Yes.\n\nGladly."]


def test_turns_that_hold_more_than_text_are_not_joined(tmp_path):
    row = talk(user("Hi."), assistant("a", weight=0), assistant("b"))
    with pytest.raises(DataError, match="Message 3"):
        read(tmp_path, [row], reading_of(merge_turns=True))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"columns": ["question"]}, "“question” is not written as NAME=VALUE"),
        ({"columns": ["question="]}, "not written as NAME=VALUE"),
        ({"columns": ["questoin=a"]}, "cannot be said to hold “questoin”"),
        ({"columns": ["question=a,answer=a"]}, "“a” is said to hold two things"),
        ({"tags": ["owner=x"]}, "“owner” is nothing"),
        ({"fill": ["name"]}, "“name” is not written as NAME=VALUE"),
        ({"fill": ["=Mochi"]}, "not written as NAME=VALUE"),
    ],
)
def test_a_mapping_that_is_none_is_wrong_usage(said, says):
    with pytest.raises(UsageError, match=says):
        reading_of(**said)


def test_a_value_may_hold_equals_signs_commas_and_nothing():
    assert reading_of(fill=["name=a=b, c", "author="]).fill == {"name": "a=b, c", "author": ""}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_sample_is_as_large_as_asked_and_the_same_every_time(tmp_path, count):
    path = write_json_rows(tmp_path / "rows.json")
    taken = [[item.row for item in read_dataset(path, Reading(samples=count)).conversations] for _ in range(2)]
    assert taken[0] == taken[1]
    assert len(taken[0]) == count
    # Each row as often as any other, give or take one, as LLaMA-Factory's num_samples has it.
    assert {taken[0].count(row) for row in range(1, len(ROWS) + 1)} <= {count // 3, count // 3 + 1}


def test_a_version_stores_rows_as_they_are_read_and_how(tmp_path):
    library = DatasetLibrary(tmp_path / "library")
    rows = [{"发言": [{"who": "customer", "what": "I am {{name}}"}, {"who": "agent", "what": "Hi."}]}]
    reading = reading_of(
        columns=["messages=发言"], tags=["role=who,content=what,user=customer,assistant=agent"], fill=["name=Bo"]
    )
    made = library.add(write_json_lines(tmp_path / "rows.jsonl", rows), "talks", reading)
    stored = library.folder / "talks" / made.version
    assert '"I am Bo"' in (stored / "rows.jsonl").read_text(encoding="utf-8")
    assert read_as(DatasetManifest, stored / "dataset.json").reading == reading
    assert library.open("talks").conversations[0].question == "I am Bo"
    again = Source(stored / "rows.jsonl", Reading(), "talks")
    assert again.family().name == "messages"


def test_a_manifest_of_before_is_still_read(tmp_path):
    library = DatasetLibrary(tmp_path / "library")
    made = library.add(write_json_rows(tmp_path / "rows.json"), "rows")
    path = library.folder / "rows" / made.version / "dataset.json"
    assert "reading" not in path.read_text(encoding="utf-8")
    assert read_as(DatasetManifest, path).reading is None


def test_a_reading_does_not_change_and_knows_its_fields():
    with pytest.raises(ValidationError):
        Reading(colums={})  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Tags().role_tag = "x"  # type: ignore[misc]
    for make in (lambda: Reading(format="alpacca"), lambda: reading_of("alpacca")):
        with pytest.raises(DataError, match="no format “alpacca”"):
            make()

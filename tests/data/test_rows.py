"""Files to rows: what is good is read, what is bad is refused with file, line and remedy."""

from __future__ import annotations

import json

import pytest

from danlu.data.rows import MAX_FIELD_CHARACTERS, Row, read_rows
from danlu.errors import DataError
from tests.data.files import ROWS, write_json_lines, write_json_rows


def refused(path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    message = caught.value.message("en")
    assert path.name in message
    assert "\n" not in message
    return caught.value


def test_a_json_array_is_read_with_the_line_of_each_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\n[\n {"a": "1"},\n\n {"a":\n   "2"}, {"a": "3"}\n]\n', encoding="utf-8")
    assert read_rows(path) == [Row(1, 3, {"a": "1"}), Row(2, 5, {"a": "2"}), Row(3, 6, {"a": "3"})]


def test_json_lines_are_read_with_their_line_and_blank_lines_do_not_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"a": "1"}\r\n\r\n  {"a": "2"}  ', encoding="utf-8")
    assert read_rows(path) == [Row(1, 2, {"a": "1"}), Row(2, 4, {"a": "2"})]


@pytest.mark.parametrize("indent", [None, 2])
def test_the_way_of_writing_does_not_matter(tmp_path, indent):
    values = [row.values for row in read_rows(write_json_rows(tmp_path / "a.json", indent=indent))]
    assert values == ROWS
    assert [row.values for row in read_rows(write_json_lines(tmp_path / "a.jsonl"))] == ROWS


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    assert len(read_rows(path)) == 3


def test_a_comma_after_the_last_row_is_forgiven(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": "1"},\n {"a": "2"},\n]', encoding="utf-8")
    assert len(read_rows(path)) == 2


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_unusual_line_separators_inside_a_text_do_not_cut_the_row(tmp_path, mark):
    rows = [{"a": f"one{mark}two"}, {"a": "b"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    assert [row.values for row in read_rows(path)] == rows


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "data.empty_file"),
        (b" \n\t\n", "data.empty_file"),
        (b"\xef\xbb\xbf", "data.empty_file"),
        (b"[]", "data.no_rows"),
        (b"[ ]\n", "data.no_rows"),
        (b"hello", "data.not_json"),
        (b"[{},,{}]", "data.not_json"),
        (b"[,]", "data.not_json"),
        (b'[{"a": 1}', "data.not_json"),
        (b'[{"a": 1}]]', "data.not_json"),
        (b'[{"a": 1}] {"b": 2}', "data.not_json"),
        (b'[{"a": 1} {"b": 2}]', "data.not_json"),
        (b'{"a": 1}, {"b": 2}', "data.not_json"),
        (b'{"a": 1} {"b": 2}', "data.not_json"),
        (b"[{'a': 1}]", "data.not_json"),
        (b'[{"a": 1},]x', "data.not_json"),
        (b'{\n "a": "1",\n "b": "2"\n}', "data.not_a_list"),
        (b'\n\n{\n "data": []\n}\n', "data.no_rows"),
        (b"[1, 2]", "data.row_not_object"),
        (b'["a"]', "data.row_not_object"),
        (b"[[]]", "data.row_not_object"),
        (b"null", "data.row_not_object"),
        (b'"text"', "data.row_not_object"),
        (b"[" * 100_000, "data.not_json"),
        (b'{"a":' * 100_000, "data.not_json"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "data.not_json"),
        (b"PK\x03\x04\xff\xfe\x00\x80", "files.bad_archive"),
        (rb'[{"a": "\ud83d"}]', "data.half_character"),
        (rb'[{"a": [["\ud83d", "b"]]}]', "data.half_character"),
    ],
)
def test_bad_content_is_refused(tmp_path, content, key):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    error = refused(path)
    assert error.key == key
    assert len(error.message("en")) < 400
    assert error.message("zh") != error.message("en")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n {"a": 1},\n {"a": }\n]', 3),
        ('[\n {"a": 1}\n {"a": 2}\n]', 3),
        ('[\n {"a": 1}\n]\n\n{"b": 1}', 5),
        ('{"a": 1}\n\n{"a": 2\n', 3),
        ('{"a": 1}\n{"a": 2} x\n', 2),
        ('[\n {"a": 1,\n  "b": "x\n', 3),
        ('[\n {"a": 1},\n 7]', 3),
    ],
)
def test_the_line_of_the_mistake_is_named(tmp_path, content, line):
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    assert f"line {line}" in refused(path).message("en")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    assert refused(tmp_path / "none.json").key == "data.missing_file"
    assert refused(tmp_path).key == "files.empty_folder"


@pytest.mark.parametrize(
    ("encoding", "text", "likely"),
    [
        ("latin-1", '[{"instruction": "caf\xe9 \xe9", "output": "\xe9\xff"}]', "another encoding"),
        ("big5", "你是誰？我是竹裡茶館的掌櫃，不是人，也不是在的有我你的是不我你有在人", "Big5"),
        ("shift_jis", "あなたは誰ですか。私はカフェの店長です。これをのにはをたがでて", "Shift-JIS"),
    ],
)
def test_another_encoding_is_named_where_it_can_be_told(tmp_path, encoding, text, likely):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(encoding))
    error = refused(path)
    assert error.key == "data.not_utf8"
    assert likely in error.message("en")
    assert "Save it as UTF-8" in error.message("en")


@pytest.mark.parametrize("where", ["field", "history"])
def test_ten_megabytes_in_one_field_are_refused_and_not_repeated(tmp_path, where):
    long = "x" * 10_000_000
    rows = [
        ROWS[0],
        {"instruction": "a", "output": long} if where == "field" else {"output": "a", "history": [["q", long]]},
    ]
    error = refused(write_json_rows(tmp_path / "big.json", rows))
    assert error.key == "data.field_too_long"
    message = error.message("en")
    assert "10,000,000 characters" in message
    assert f"row 2 (line 1), field {'output' if where == 'field' else 'history'}" in message
    assert len(message) < 300


def test_a_long_but_possible_field_is_read(tmp_path):
    rows = [{"instruction": "a", "output": "x" * MAX_FIELD_CHARACTERS}]
    assert len(read_rows(write_json_rows(tmp_path / "a.json", rows))) == 1

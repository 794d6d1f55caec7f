"""Text files and rows of texts: read, registered, refused with file, row, field and remedy."""

from __future__ import annotations

import json

import pytest

from danlu.data.check import check_file
from danlu.data.datasets import DatasetLibrary, read_dataset, require_kind
from danlu.errors import DataError
from danlu.models.chat_format import ChatFormat
from tests.data.files import ROWS, story, write_json_lines, write_json_rows, write_texts
from tests.tiny import tiny_tokenizer


@pytest.fixture
def library(tmp_path):
    return DatasetLibrary(tmp_path / "datasets")


def write(path, text: str, encoding: str = "utf-8", newline: str = "\n"):
    path.write_text(text, encoding=encoding, newline=newline)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.md", "A.TXT", "a.markdown"])
def test_a_text_file_is_one_document_whatever_stands_in_it(tmp_path, name):
    text = '# Tea\n\n[{"text": 1}]\n\u2028\n\nThe end.\n'
    dataset = read_dataset(write(tmp_path / name, text))
    assert (dataset.kind, dataset.conversations) == ("texts", ())
    assert [document.text for document in dataset.documents] == [text]


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_part_of_a_text(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo\n", "utf-8-sig", "\r\n")
    assert read_dataset(path).documents[0].text == "one\ntwo\n"


@pytest.mark.parametrize("write_rows", [write_json_rows, write_json_lines])
def test_a_row_with_a_text_is_a_document(tmp_path, write_rows):
    rows = [{"text": "one\r\n\ntwo"}, {"text": "三", "title": "x"}]
    dataset = read_dataset(write_rows(tmp_path / "a.json", rows))
    assert [document.text for document in dataset.documents] == ["one\r\n\ntwo", "三"]
    assert [document.row for document in dataset.documents] == [1, 2]


def test_a_row_of_a_conversation_with_a_text_beside_it_is_a_conversation(tmp_path):
    dataset = read_dataset(write_json_rows(tmp_path / "a.json", [{**ROWS[0], "text": "x"}]))
    assert dataset.kind == "conversations"


def test_texts_are_registered_as_versions(library, tmp_path):
    path = write(tmp_path / "notes.txt", story())
    first = library.register(str(path))
    assert (first.name, first.kind, first.rows, first.source) == ("notes", "texts", 1, "notes.txt")
    assert library.register(str(path)) == first
    write(path, story(3))
    second = library.add(path, "notes")
    assert second.version != first.version
    assert library.open_version("notes", first.version).documents[0].text == story()
    assert library.open("notes").documents[0].text == story(3)
    same = library.add(write_json_rows(tmp_path / "same.json", [{"text": story(3)}]), "notes")
    assert same == second, "the same text is the same version however it is written"


def test_a_document_of_ten_million_characters_is_read(library, tmp_path):
    text = "茶" * 10_000_000
    assert library.add(write(tmp_path / "long.txt", text), "long").rows == 1
    assert len(library.open("long").documents[0].text) == 10_000_000
    assert len(read_dataset(write_json_rows(tmp_path / "long.json", [{"text": text}])).documents[0].text) == 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "key", "says"),
    [
        ("a.txt", b"", "data.empty_text", "The file is empty. Put the text"),
        ("a.md", b" \n\t\n", "data.empty_text", "a.md"),
        ("a.txt", "caf\xe9 \xe9t\xe9".encode("latin-1"), "data.not_utf8", "looks like another encoding"),
        ("a.txt", b"one\nt\0w\0o\0", "data.binary_text", "a.txt, line 2"),
        ("a.json", b'[{"text": "a"},\n{"text": ""}]', "data.document_empty", "a.json, row 2 (line 2), field text"),
        ("a.json", b'[{"text": "a"}, {"body": "b"}]', "data.document_missing", "row 2 (line 1), field text"),
        ("a.json", b'[{"text": ["a"]}]', "data.field_not_text", "must be text, but is a list"),
        ("a.json", b'[{"text": "\\ud83d"}]', "data.half_character", "row 1 (line 1), field text"),
        ("a.json", b'[{"body": "a"}]', "data.unknown_format", "text=… for plain text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place_and_remedy(tmp_path, name, content, key, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert caught.value.key == key
    assert says in caught.value.message("en")


def test_each_kind_has_its_objective():
    require_kind("a", "texts", "pretrain")
    require_kind("a", "conversations", "sft")
    with pytest.raises(DataError, match="objective=pretrain"):
        require_kind("a", "texts", "sft")
    with pytest.raises(DataError, match="objective=sft"):
        require_kind("a", "conversations", "pretrain")


def test_the_check_counts_documents_characters_and_tokens(tmp_path):
    rows = [{"text": "tea"}, {"text": "house", "title": "x"}, {"text": "tea"}, {"text": " "}, {"title": "y"}]
    report = check_file(write_json_lines(tmp_path / "a.jsonl", rows), ChatFormat(tiny_tokenizer()))
    assert (report.kind, report.row_format, report.rows, report.usable) == ("texts", "text", 5, 3)
    assert (report.characters, report.duplicates) == (11, 1)
    codes = [problem.code for problem in report.problems]
    assert codes == [
        "data.document_empty", "data.document_missing", "data.duplicate", "data.unknown_fields", "data.few_characters",
    ]  # fmt: skip
    assert report.problems[0].field == "text"
    encoded = [tiny_tokenizer().encode(text, add_special_tokens=False) for text in ("tea", "house", "tea")]
    assert report.tokens.supervised == sum(map(len, encoded)) + 3
    assert report.tokens.total == report.tokens.supervised + 3
    assert report.tokens.max == max(map(len, encoded)) + 2


def test_enough_text_gets_no_warning(tmp_path):
    report = check_file(write(tmp_path / "a.txt", "tea " * 100_000))
    assert report.problems == ()
    assert json.loads(report.model_dump_json())["characters"] == 400_000


def test_a_file_of_many_texts_is_read_in_their_order(tmp_path):
    documents = read_dataset(write_texts(tmp_path / "a.jsonl", 7)).documents
    assert [document.line for document in documents] == list(range(1, 8))

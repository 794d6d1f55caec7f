"""Rows are encoded once for a tokenizer and a template, and never taken for others."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from danlu.data.datasets import read_dataset
from danlu.data.encode import encode
from danlu.data.encoded import Encoder
from danlu.data.texts import cut
from danlu.errors import ModelError
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from tests.data.files import question_rows, write_json_rows, write_texts
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def chat_format():
    return ChatFormat(tiny_tokenizer())


@pytest.fixture
def answers(tmp_path):
    return read_dataset(write_json_rows(tmp_path / "a.json", question_rows(25)))


class Watched:
    def __init__(self, folder):
        self.seen: list[tuple[int, int]] = []
        self.encoder = Encoder(folder, lambda done, total: self.seen.append((done, total)))


def test_a_table_holds_what_encoding_gives(tmp_path, answers, chat_format):
    table = Encoder(tmp_path / "c").conversations(answers.sha256, answers.conversations, chat_format)
    assert table == encode(answers.conversations, chat_format)
    assert table.columns.origin.tolist() == list(range(25))


def test_what_is_encoded_already_is_not_encoded_again(tmp_path, answers, chat_format, monkeypatch):
    monkeypatch.setattr("danlu.data.encoded._BLOCK", 10)
    watched = Watched(tmp_path / "c")
    first = watched.encoder.conversations(answers.sha256, answers.conversations, chat_format)
    assert watched.seen == [(10, 25), (20, 25), (25, 25)]
    again = watched.encoder.conversations(answers.sha256, answers.conversations, chat_format)
    assert len(watched.seen) == 3
    assert again == first


@pytest.mark.parametrize("change", ["system", "template", "rows", "count", "learn", "thinking", "vocabulary"])
def test_what_tokens_depend_on_makes_a_table_of_its_own(tmp_path, answers, chat_format, change):
    watched = Watched(tmp_path / "c")
    watched.encoder.conversations(answers.sha256, answers.conversations, chat_format)
    other, sha256, conversations, learn = chat_format, answers.sha256, answers.conversations, "all"
    match change:
        case "system":
            other = chat_format.with_system("Be short.")
        case "template":
            tokenizer = tiny_tokenizer()
            tokenizer.chat_template = str(tokenizer.chat_template) + " "
            other = ChatFormat(tokenizer)
        case "vocabulary":
            tokenizer = tiny_tokenizer()
            tokenizer.add_tokens(["number"])
            other = ChatFormat(tokenizer)
        case "thinking":
            other = replace(chat_format, thinking="off")
        case "rows":
            sha256 = "0" * 64
        case "count":
            conversations = conversations[:5]
        case "learn":
            learn = "last"
    made = watched.encoder.conversations(sha256, conversations, other, learn)
    assert len(watched.seen) == 2
    assert made == encode(conversations, other, learn)


def test_pieces_of_documents_know_which_document_they_are_of(tmp_path, chat_format, monkeypatch):
    monkeypatch.setattr("danlu.data.encoded._BLOCK", 5)
    dataset = read_dataset(write_texts(tmp_path / "t.jsonl"))
    form = DocumentFormat.of(chat_format.tokenizer)
    table = Encoder(tmp_path / "c").documents(dataset.sha256, dataset.documents, form, 64)
    plain = cut(dataset.documents, form, 64)
    assert table == plain
    assert table.columns.origin.tolist() == [piece.row - 1 for piece in plain]
    shorter = Encoder(tmp_path / "c").documents(dataset.sha256, dataset.documents, form, 32)
    assert shorter == cut(dataset.documents, form, 32)


def test_rows_that_cannot_be_encoded_leave_no_table(tmp_path, answers):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ModelError):
        Encoder(tmp_path / "c").conversations(answers.sha256, answers.conversations, ChatFormat(tokenizer))
    assert [path for path in (tmp_path / "c").iterdir() if path.is_dir()] == []


def test_tables_unused_for_longest_make_room(tmp_path, answers, chat_format, monkeypatch):
    encoder = Encoder(tmp_path / "c")

    def tables():
        return {path.name for path in (tmp_path / "c").iterdir() if path.is_dir()}

    encoder.conversations(answers.sha256, answers.conversations, chat_format)
    (oldest,) = tables()
    os.utime(tmp_path / "c" / oldest, (1, 1))
    encoder.conversations(answers.sha256, answers.conversations, chat_format, "last")
    (older,) = tables() - {oldest}
    size = sum(file.stat().st_size for file in (tmp_path / "c" / older).iterdir())
    monkeypatch.setattr("danlu.data.encoded._KEPT_BYTES", 2 * size)
    encoder.conversations(answers.sha256, answers.conversations[:24], chat_format)
    assert oldest not in tables()
    assert older in tables()
    assert len(tables()) == 2

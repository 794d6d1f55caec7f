"""Rows of a version are read from its file one by one, and are the same as those read at once."""

from __future__ import annotations

import json

import pytest

from danlu.data.stored import Converted, RowFile, write_rows
from danlu.errors import DataError


def stored(path, rows):
    write_rows(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    return RowFile(path)


def test_rows_are_found_by_number_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("danlu.data.stored._BLOCK", 7)
    rows = [{"a": "é茶\u2028b\x85", "n": number} for number in range(20)]
    file = stored(tmp_path / "r.jsonl", rows)
    assert len(file) == 20
    assert [row.values for row in file] == rows
    assert [file.row(number).values for number in (0, 19, 7)] == [rows[0], rows[19], rows[7]]
    assert (file.row(7).index, file.row(7).line) == (8, 8)


def test_what_rows_mean_is_made_when_it_is_asked_for(tmp_path):
    asked = []

    def convert(row):
        asked.append(row.index)
        return row.values["n"]

    means = Converted(stored(tmp_path / "r.jsonl", [{"n": number} for number in range(10)]), convert)
    assert asked == []
    assert means[4] == 4
    assert means[-2:] == [8, 9]
    assert asked == [5, 9, 10]
    assert means == list(range(10))


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"r\.jsonl:2"):
        RowFile(path).row(1)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        RowFile(tmp_path / "none.jsonl")

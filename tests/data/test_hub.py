"""Data sets of hubs: named, opened as their files lie in a repository, and refused with what can be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.data.sources.hub import HubName, dataset_rows, hub_name, opened_dataset
from danlu.errors import DataError

pytest.importorskip("datasets")
ROWS = [{"question": f"What is {n}?", "answer": f"It is {n}.", "none": None} for n in range(5)]


def written(folder: Path, *names: str) -> str:
    """Write a folder as a repository of a hub has it, and return its path."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:owner/name", HubName("hf", "owner/name", "", "", "")),
        ("ms:o/n/en@v2:test", HubName("ms", "o/n", "en", "v2", "test")),
        ("hf.json", None),
        ("C:rows.json", None),
    ],
)
def test_a_name_says_where_a_data_set_lies(text, name):
    assert hub_name(text) == name
    assert name is None or str(name) == text


def test_rows_of_a_repository_are_streamed_without_empty_fields(tmp_path):
    hub = HubName("hf", "owner/name", "", "", "")
    dataset = opened_dataset(hub, written(tmp_path, "data/train.jsonl"))
    assert list(dataset_rows(hub, dataset)) == [
        (number, {"question": row["question"], "answer": row["answer"]}) for number, row in enumerate(ROWS, start=1)
    ]


def test_a_split_is_asked_for_where_several_could_be_meant(tmp_path):
    folder = written(tmp_path, "data/test.jsonl", "data/validation.jsonl")
    with pytest.raises(DataError) as caught:
        opened_dataset(HubName("hf", "owner/name", "", "", ""), folder)
    assert "hf:owner/name:validation" in caught.value.message("en") or "hf:owner/name:test" in caught.value.message(
        "en"
    )
    hub = HubName("hf", "owner/name", "", "", "test")
    assert len(list(dataset_rows(hub, opened_dataset(hub, folder)))) == len(ROWS)


def test_a_repository_without_rows_is_refused_with_its_name(tmp_path):
    (tmp_path / "read.me").write_text("nothing here", encoding="utf-8")
    with pytest.raises(DataError, match="hf:owner/name"):
        opened_dataset(HubName("hf", "owner/name", "", "", ""), str(tmp_path))

"""Examples in files look and count like examples in memory."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.examples import Example
from danlu.data.sequences import Chained, Selected
from danlu.data.table import ExampleTable, Packed, TableWriter, lengths_of, supervised_of, texts_of
from danlu.errors import MachineError


def some_examples(count: int, seed: int = 1) -> list[Example]:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        length = draw.randint(1, 9)
        learn = (False, *(draw.random() < 0.5 for _ in range(length - 1)))
        ids = tuple(draw.randint(0, 200_000) for _ in range(length))
        made.append(Example(ids, learn, number * 3 + 1, weight=draw.choice([1.0, 0.3])))
    return made


def written(folder, examples: Sequence[Example]) -> ExampleTable:
    folder.mkdir()
    with TableWriter(folder) as writer:
        for origin, example in enumerate(examples):
            writer.add(example.input_ids, example.learn, example.row, origin // 2, example.weight)
    return ExampleTable(folder)


def counted(examples: Sequence[Example]) -> tuple[list[int], list[int], list[bool]]:
    return (
        [len(example.input_ids) for example in examples],
        [example.supervised for example in examples],
        [example.text for example in examples],
    )


def assert_counts(examples: Sequence[Example]) -> None:
    made = (lengths_of(examples), supervised_of(examples), texts_of(examples))
    assert tuple(array.tolist() for array in made) == counted(list(examples))


def test_a_table_gives_back_what_was_written(tmp_path):
    examples = some_examples(50)
    table = written(tmp_path / "t", examples)
    assert table == examples
    assert list(table) == examples
    assert table[7] == examples[7]
    assert table[-1] == examples[-1]
    assert table[3:9] == examples[3:9]
    assert table.columns.origin.tolist() == [number // 2 for number in range(50)]
    with pytest.raises(IndexError):
        table[50]
    assert_counts(table)


def test_a_table_of_nothing_is_empty(tmp_path):
    table = written(tmp_path / "t", [])
    assert len(table) == 0
    assert list(table) == []
    assert_counts(table)


def test_columns_that_go_over_several_blocks_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("danlu.data.table._BLOCK", 7)
    examples = some_examples(30)
    assert written(tmp_path / "t", examples) == examples


def test_a_table_whose_writing_failed_cannot_be_read(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()

    def write() -> None:
        with TableWriter(folder) as writer:
            writer.add([1], [False], 1, 0)
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        write()
    with pytest.raises(FileNotFoundError):
        ExampleTable(folder)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_said(tmp_path):
    (tmp_path / "ids.i32").symlink_to("/dev/full")

    def write(rows: int) -> None:
        with TableWriter(tmp_path) as writer:
            for _ in range(rows):
                writer.add(list(range(100)), [False] * 100, 1, 0)

    with pytest.raises(MachineError, match="full"):
        write(10_000)
    with pytest.raises(MachineError, match="full"):
        write(1)  # found out only when the file is closed


@given(seed=st.integers(0, 1000), count=st.integers(1, 12))
def test_views_of_views_count_like_lists(seed, count):
    draw = random.Random(seed)
    examples = some_examples(count, seed)
    view = Chained([examples, Selected(examples, np.array(draw.sample(range(count), count)))])
    bins = [[0], list(range(min(3, count)))]
    for sequence in (view, Packed(view, bins), Packed(view, bins, text=True), Selected(view, np.array([count, 0]))):
        assert_counts(sequence)
    assert list(view[count - 1 :]) == list(view)[count - 1 :]


def test_packed_texts_are_joined_in_the_order_of_their_bin():
    first, second, third = some_examples(3)
    packed = Packed([first, second, third], [[0, 2], [1]], text=True)
    assert packed[0].input_ids == first.input_ids + third.input_ids
    assert packed[0].learn == first.learn + third.learn
    assert packed[0].lengths == (len(first.input_ids), len(third.input_ids))
    assert packed[1].input_ids == second.input_ids
    assert packed[1].lengths == ()
    assert all(example.text for example in packed)


def test_sequences_are_equal_when_their_items_are():
    examples = some_examples(4)
    assert Chained([examples[:2], examples[2:]]) == examples
    assert Chained([examples]) != examples[:3]
    assert Chained([examples]) != [*examples[:3], examples[0]]
    assert Chained([]) == []
    assert Chained([examples]) != 4

"""Prefix trees: whatever is shared, every example is found again whole, and costs are known before."""

from __future__ import annotations

import random

import pytest

from danlu.data.batches import computed_tokens, micro_batches, pack, pack_together
from danlu.data.examples import Example
from danlu.data.layout import Layout, Segment
from danlu.data.prefix_tree import PrefixTree, common_prefix


def random_rows(seed: int, count: int = 14) -> list[tuple[int, ...]]:
    """Rows that branch off each other at random places, with copies and rows that end within another."""
    rng = random.Random(seed)
    rows = [tuple(rng.randrange(9) for _ in range(rng.randint(1, 60)))]
    while len(rows) < count:
        known = rng.choice(rows)
        head = known[: rng.randint(0, len(known))]
        tail = tuple(rng.randrange(9) for _ in range(rng.randint(0, 40)))
        if head + tail:
            rows.append(head + tail)
    return rows


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("share", [True, False])
def test_every_example_is_in_the_tree_whole_and_in_its_place(seed, share):
    rows = random_rows(seed)
    common = rows[0][: common_prefix(rows)]
    tree = PrefixTree(common, share=share)
    for row in rows:
        before, cost = tree.tokens, tree.cost(row)
        tree.add(row)
        assert tree.tokens == before + cost
    layout, ids, stretches = tree.layout()
    assert len(ids) == layout.total == tree.tokens
    positions = layout.position_ids[0].tolist()
    segment_of = [number for number, segment in enumerate(layout.segments) for _ in range(segment.length)]
    for row, parts in zip(rows, stretches, strict=True):
        places = [place for start, stop in parts for place in range(start, stop)]
        assert tuple(ids[place] for place in places) == row
        assert [positions[place] for place in places] == list(range(len(row)))
        path = list(dict.fromkeys(segment_of[place] for place in places))
        assert tuple(path[:-1]) == layout.above[path[-1]]
    if not share:
        assert layout.total == sum(map(len, rows))


@pytest.mark.parametrize("seed", range(25))
def test_each_slot_of_a_query_comes_back_to_its_place(seed):
    layout = pack([Example(row, (False, *(True,) * (len(row) - 1)), 1) for row in random_rows(seed)]).layout
    slots = sum(group.count * group.slots for group in layout.groups)
    of_query = list(range(slots)) if layout.query_slots is None else layout.query_slots.tolist()
    back = list(range(layout.total)) if layout.back is None else layout.back.tolist()
    assert [of_query[slot] for slot in back] == list(range(layout.total))
    of_keys = list(range(layout.total)) if layout.key_slots is None else layout.key_slots.tolist()
    at = 0
    for group in layout.groups:
        assert of_keys[at : at + group.before] == group.path.tolist()
        at += group.before + group.count * group.slots
    assert at == len(of_keys)


def test_a_question_with_several_answers_stands_once_in_each_micro_batch():
    system, question, other = tuple(range(100, 130)), tuple(range(200, 220)), tuple(range(300, 325))
    rows = [(*system, *question, 1, 2), (*system, *other, 3), (*system, *question, 4), (*system, *other, 5, 6)]
    examples = [Example(row, (False, *(True,) * (len(row) - 1)), 1) for row in rows]
    together = pack(examples).layout
    assert together.segments == (
        Segment(-1, 30), Segment(0, 20), Segment(1, 2), Segment(1, 1), Segment(0, 25), Segment(4, 1), Segment(4, 2),
    )  # fmt: skip
    small = micro_batches(examples, 70)
    assert [piece.layout.total for piece in small] == [53, 58], "those that share a question come together"
    assert computed_tokens([examples], 70, share_prefix=True) == 111
    assert computed_tokens([examples], 70, share_prefix=False) == sum(map(len, rows))


def test_a_budget_counts_what_is_computed():
    shared = tuple(range(50, 150))
    examples = [Example((*shared, number, number), (False,) * 101 + (True,), 1) for number in range(10)]
    assert [piece.layout.total for piece in micro_batches(examples, 120)] == [120]
    assert all(piece.layout.total <= 110 for piece in micro_batches(examples, 110))


def test_too_little_is_not_shared():
    alike = Example((1, 2, 3, 4), (False, False, True, True), 1)
    other = Example((1, 2, 3, 5), (False, False, True, True), 2)
    assert pack([alike, other]).layout == Layout.flat([4, 4])


@pytest.mark.parametrize("budget", [60, 90, 150, 4096])
def test_units_stay_whole_and_within_the_budget(budget):
    units = [
        [Example((*range(100 * n, 100 * n + 40), n, end), (False,) * 41 + (True,), 1) for end in (1, 2)]
        for n in range(1, 7)
    ]
    pieces = pack_together(units, budget)
    assert [text for piece in pieces for text in piece.examples] == [text for unit in units for text in unit]
    assert all(len(piece.examples) % 2 == 0 for piece in pieces)
    assert all(piece.layout.total <= budget for piece in pieces), "a pair computes 43 tokens, not 84"

"""How often rows are drawn: right to the row, the same for the same seed, never one that is measured on."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.data.mixture import Share, times_drawn
from danlu.errors import RecipeError

HASHES = ("a1" * 32, "b2" * 32)


def drawn(*shares, seed=42, may=None, sizes=(10, 7)):
    allowed = np.ones(sum(sizes), dtype=np.bool_) if may is None else may
    return times_drawn(allowed, ("one", "two"), HASHES, sizes, shares, seed)


def test_rows_are_learned_once_where_nothing_is_said():
    times, parts = drawn(Share(), Share())
    assert times.tolist() == [1] * 17
    assert [(part.rows, part.drawn) for part in parts] == [(10, 10), (7, 7)]


@pytest.mark.parametrize(
    ("weight", "count", "least", "most"),
    [(0.5, 5, 0, 1), (0.25, 3, 0, 1), (1.5, 15, 1, 2), (2, 20, 2, 2), (3.2, 32, 3, 4), (0.01, 1, 0, 1)],
)
def test_a_weight_gives_so_many_rows_evenly(weight, count, least, most):
    times, parts = drawn(Share(weight), Share())
    assert times[:10].sum() == count == parts[0].drawn
    assert (times[:10].min(), times[:10].max()) == (least, most)
    assert times[10:].tolist() == [1] * 7


def test_so_many_rows_are_taken_and_each_is_weighed():
    times, parts = drawn(Share(2.0, 3), Share(1.0, 7))
    assert sorted(times[:10].tolist()) == [0] * 7 + [2] * 3
    assert times[10:].tolist() == [1] * 7
    assert [(part.rows, part.drawn) for part in parts] == [(10, 6), (7, 7)]


def test_the_seed_decides_which_and_other_data_sets_do_not():
    one, _ = drawn(Share(0.5), Share())
    assert one.tolist() == drawn(Share(0.5), Share(3.0))[0][:10].tolist() + one[10:].tolist()
    assert one.tolist() == drawn(Share(0.5), Share())[0].tolist()
    assert any(drawn(Share(0.5), Share(), seed=seed)[0].tolist() != one.tolist() for seed in (1, 2, 3))


def test_rows_that_are_measured_on_are_never_drawn():
    may = np.ones(17, dtype=np.bool_)
    may[[0, 3, 9, 16]] = False
    times, parts = drawn(Share(2.5), Share(1.0, 5), may=may)
    assert not times[~may].any()
    assert [(part.rows, part.drawn) for part in parts] == [(7, 18), (6, 5)]


def test_more_rows_than_there_are_is_refused_with_their_number():
    with pytest.raises(RecipeError) as caught:
        drawn(Share(), Share(1.0, 8))
    assert caught.value.where == "two"
    assert caught.value.params == {"samples": 8, "rows": 7}

"""Data sets are mixed by weights: counts per epoch, held-out rows, and a resumption that lands on the same rows."""

from __future__ import annotations

from collections import Counter

import pytest

from danlu.data.datasets import DatasetLibrary
from danlu.errors import RecipeError
from danlu.jobs import pipeline, preparing
from tests.data.files import question_rows, story, write_json_rows
from tests.jobs.homes import assert_same_bits, never, quiet, recipe, stopped_and_resumed


@pytest.fixture
def mixed(home, material, tmp_path):
    """Return a recipe of two data sets, of twelve and of eight rows, mixed as it is told."""
    model, numbers = material
    other = [{"instruction": f"Name colour {n}.", "output": f"Colour {n}!"} for n in range(8)]
    library = DatasetLibrary(home.datasets)
    library.add(numbers, "numbers")
    library.add(write_json_rows(tmp_path / "colours.json", other), "colours")
    return lambda *more: recipe(model, "[numbers, colours]", *more)


def prepared(home, wanted):
    return preparing.prepare(home, wanted, quiet, predict_cost=False)


def times(parts):
    return Counter(tuple(example.input_ids) for example in parts.examples)


def test_an_epoch_has_so_many_rows_of_each_as_the_plan_says(home, mixed):
    parts = prepared(home, mixed("data.holdout=0", "data.weights.numbers=0.5", "data.weights.colours=2"))
    assert [(item.name, item.rows, item.weight, item.drawn) for item in parts.plan.mix] == [
        ("numbers", 12, 0.5, 6), ("colours", 8, 2, 16),
    ]  # fmt: skip
    assert parts.plan.mix[0].share == pytest.approx(6 / 22)
    assert parts.plan.data.train == len(parts.examples) == 22
    assert sorted(times(parts).values()) == [1] * 6 + [2] * 8


def test_no_row_that_is_measured_on_is_learned(home, mixed):
    parts = prepared(home, mixed("data.weights.colours=3", "data.samples.numbers=4"))
    assert parts.heldout
    assert not set(times(parts)) & {tuple(example.input_ids) for example in parts.heldout}
    numbers, colours = parts.plan.mix
    assert (numbers.drawn, colours.drawn) == (4, 3 * colours.rows)
    assert numbers.rows + colours.rows + len(parts.heldout) == 20


def test_the_seed_decides_which_rows_and_the_same_seed_gives_the_same_sequence(home, mixed):
    def sequence(seed):
        found = prepared(home, mixed("data.holdout=0", "data.weights.numbers=0.5", f"train.seed={seed}"))
        return [tuple(example.input_ids) for example in found.examples]

    first = sequence(1)
    assert sequence(1) == first
    assert any(sequence(seed) != first for seed in (2, 3))


def test_a_stopped_run_of_mixed_data_goes_on_to_the_same_bits_on_its_own_versions(home, mixed, tmp_path):
    wanted = mixed("data.weights.numbers=0.5", "data.weights.colours=1.5")
    whole = prepared(home, wanted)
    assert pipeline.train(whole, quiet, never).status == "finished"
    library = DatasetLibrary(home.datasets)

    def newer() -> None:
        library.add(write_json_rows(tmp_path / "newer.json", question_rows(30)), "numbers")

    again, _ = stopped_and_resumed(home, wanted, after=2, between=newer)
    assert len(library.versions("numbers")) == 2
    assert_same_bits(whole.run, again.run)


def test_a_version_that_is_named_is_the_one_that_is_learned(home, mixed, material, tmp_path):
    library = DatasetLibrary(home.datasets)
    (old,) = library.versions("numbers")
    library.add(write_json_rows(tmp_path / "newer.json", question_rows(30)), "numbers")
    named = f"numbers@{old.version}"
    parts = prepared(home, recipe(material[0], named, "data.holdout=0", f"data.weights={{{named}: 2}}"))
    assert parts.plan.datasets[0].version == old.version
    assert len(parts.examples) == 24


def test_texts_and_judged_answers_are_mixed_as_well(home, material, tmp_path):
    model = material[0]
    texts = write_json_rows(tmp_path / "texts.json", [{"text": story(2, name)} for name in ("Mochi", "Bo", "Li")])
    read = prepared(home, recipe(model, texts, "objective=pretrain", "data.holdout=0", f"data.weights={{{texts}: 2}}"))
    assert (read.plan.mix[0].rows, read.plan.mix[0].drawn) == (3, 6)
    pairs = [{"instruction": f"Question {n}?", "chosen": f"Yes {n}.", "rejected": "No."} for n in range(6)]
    judged = write_json_rows(tmp_path / "pairs.json", pairs)
    asked = recipe(model, judged, "objective=dpo", "data.holdout=0", f"data.samples={{{judged}: 4}}")
    assert len(prepared(home, asked).examples) == 4


def test_a_weight_for_what_is_not_learned_is_refused_before_anything_is_read(home, mixed):
    with pytest.raises(RecipeError) as caught:
        prepared(home, mixed("data.weights.shapes=2"))
    assert caught.value.key == "versions.not_learned"
    assert "numbers, colours" in caught.value.message("en")


def test_a_single_data_set_as_it_is_has_no_table(home, material):
    assert prepared(home, recipe(*material)).plan.mix == ()

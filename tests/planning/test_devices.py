"""How many processes train together is decided, said, and refused where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from danlu.errors import RecipeError
from danlu.planning import requirements
from danlu.planning.devices import decide_devices, with_devices
from danlu.planning.plan import Together
from danlu.planning.requirements import require_built
from tests.planning.test_plan import plan, recipe
from tests.planning.test_rules import base, machine


def decided(*words: str, here=None):
    made = decide_devices(plan(*words), recipe(*words), base(), here or machine())
    return made, {item.field: item for item in made.decisions}


def test_one_process_is_the_rule():
    made, decisions = decided()
    assert made.together is None
    assert decisions["resources.devices"].value == 1
    assert decisions["resources.devices"].by == "danlu"
    assert "resources.strategy" not in decisions


def test_each_process_has_the_whole_model_where_it_fits():
    made, decisions = decided("resources.devices=2", "train.batch_size=8")
    assert made.together == Together(devices=2, strategy="ddp")
    assert decisions["resources.devices"].by == "recipe"
    assert "fits 2 times" in decisions["resources.strategy"].because("en")
    assert [notice.code for notice in made.notices][-1] == "planning.notice_unpredicted"


def test_its_weights_are_divided_where_it_does_not():
    made, decisions = decided("resources.devices=2", here=replace(machine(), available_bytes=1 << 20))
    assert made.together.strategy == "fsdp"
    assert "divided" in decisions["resources.strategy"].because("en")
    made, _ = decided("resources.devices=2", "resources.strategy=zero3", "resources.offload=true")
    assert made.together == Together(devices=2, strategy="zero3", offload=True)


def test_more_processes_than_examples_of_a_step_are_refused():
    with pytest.raises(RecipeError) as caught:
        decided("resources.devices=5", "train.batch_size=4")
    assert caught.value.where == "resources.devices"
    assert "at most 4" in caught.value.message("en")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["resources.strategy=fsdp", "method=qlora"], "planning.strategy_qlora"),
        (["resources.strategy=zero2", "train.optim=muon"], "planning.strategy_optim"),
        (["resources.strategy=fsdp", "method=full", "train.optim=adafactor"], "planning.strategy_optim"),
        (["resources.strategy=zero3", "new_tokens=[<x>]"], "planning.strategy_new_tokens"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_remedy(words, key):
    with pytest.raises(RecipeError) as caught:
        require_built(recipe("resources.devices=2", *words))
    assert caught.value.key == key
    assert caught.value.where == "resources.strategy"
    require_built(recipe("resources.devices=2", *words, "resources.strategy=ddp"))


@pytest.mark.parametrize("words", [["resources.strategy=fsdp"], ["resources.strategy=ddp", "resources.devices=1"]])
def test_a_strategy_without_several_processes_is_refused(words):
    with pytest.raises(RecipeError) as caught:
        require_built(recipe(*words))
    assert caught.value.key == "planning.strategy_alone"


def test_adapters_take_any_optimizer_where_only_the_model_is_divided():
    require_built(recipe("resources.devices=2", "resources.strategy=fsdp", "train.optim=muon"))


def test_deepspeed_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        require_built(recipe("resources.devices=2", "resources.strategy=zero1"))
    assert "danlu[deepspeed]" in caught.value.message("en")


def test_a_run_may_go_on_with_another_number_of_processes():
    made, _ = decided("resources.devices=2", "resources.strategy=zero2", "train.batch_size=4")
    assert with_devices(made, None) == made.together
    assert with_devices(made, 1) is None
    assert with_devices(made, 3) == Together(devices=3, strategy="zero2")
    assert with_devices(decided()[0], 2) == Together(devices=2, strategy="ddp")
    with pytest.raises(RecipeError):
        with_devices(made, 5)

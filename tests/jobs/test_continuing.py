"""A run goes on from the adapter of another: its weights, its shape, checked against the base, resumed exactly."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from danlu.errors import DanluError, RecipeError
from danlu.events import Eval
from danlu.jobs import pipeline, preparing
from danlu.models.load import load_model
from danlu.settings import Home
from danlu.training.forward import LossModel
from danlu.training.trained import adapter_off
from tests.jobs.homes import assert_same_bits, never, quiet, recipe, stopped_and_resumed, write_material
from tests.tiny import tiny_model, write_tiny_model


def trained(home, wanted):
    """Train a recipe; return what was prepared and the report."""
    prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
    return prepared, pipeline.train(prepared, quiet, never)


def adapter_of(run):
    return load_file(run.adapter / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A home with a finished run of rank 4, its material, and its report."""
    home = Home(tmp_path_factory.mktemp("home")).make()
    material = write_material(tmp_path_factory.mktemp("material"))
    prepared, report = trained(home, recipe(*material, "lora.r=4", "lora.lora_alpha=8", "train.learning_rate=5e-3"))
    return home, material, prepared.run, report


def refused(first, *words):
    home, material, _, _ = first
    before = sorted(path.name for path in home.runs.iterdir())
    with pytest.raises(DanluError) as caught:
        preparing.prepare(home, recipe(*material, *words), quiet)
    assert sorted(path.name for path in home.runs.iterdir()) == before, "nothing is left of it"
    return caught.value


def test_a_run_begins_where_the_other_ended_and_is_compared_with_the_untouched_base(first):
    home, material, run, report = first
    prepared = preparing.prepare(home, recipe(*material, f"lora.adapter={run.name}"), quiet)
    plan = prepared.plan
    assert (plan.settings.lora.r, plan.settings.lora.lora_alpha) == (4, 8)
    assert {item.reason for item in plan.decisions if item.field.startswith("lora.")} == {"planning.from_adapter"}
    assert (plan.continued_from.kind, plan.continued_from.name) == ("run", run.name)
    assert "planning.notice_continued" in {item.code for item in plan.notices}
    begun = load_file(prepared.run.path / "start" / "adapter_model.safetensors")
    assert all(begun[name].equal(value) for name, value in adapter_of(run).items())

    second = pipeline.train(prepared, quiet, never)
    measured = [item.event for item in prepared.run.events() if isinstance(item.event, Eval)]
    assert measured[0].step == 0
    assert measured[0].heldout_loss == pytest.approx(report.heldout_loss, rel=1e-5), "step 0 shows where it began"
    assert second.heldout_loss_before == pytest.approx(report.heldout_loss_before, rel=1e-5), "before is the base"
    moved = adapter_of(prepared.run)
    assert any(not moved[name].equal(value) for name, value in begun.items())
    proof = pipeline.prove_run(preparing.reopen(home, prepared.run.name, quiet), quiet)
    assert proof.heldout.loss_before == second.heldout_loss_before


def test_the_base_is_as_it_was_when_the_adapter_is_off(first):
    home, material, run, _ = first
    prepared = preparing.prepare(home, recipe(*material, f"lora.adapter={run.name}"), quiet, predict_cost=False)
    base = LossModel(load_model(material[0], "float32")).mean_loss(prepared.heldout, 1 << 20)
    with adapter_off(prepared.model):
        assert LossModel(prepared.model).mean_loss(prepared.heldout, 1 << 20) == pytest.approx(base, rel=1e-6)


@pytest.mark.parametrize("words", [(), ("lora.lora_dropout=0.2",), ("method=qlora",)])
def test_a_stopped_run_goes_on_to_the_same_bits_though_the_first_run_is_gone(first, tmp_path, words):
    _, material, run, _ = first
    home = Home(tmp_path / "home").make()
    shutil.copytree(run.path, home.runs / run.name)
    wanted = recipe(*material, f"lora.adapter={run.name}", *words)
    whole, _ = trained(home, wanted)
    again, _ = stopped_and_resumed(home, wanted, 2, between=lambda: shutil.rmtree(home.runs / run.name))
    assert_same_bits(whole.run, again.run)


@pytest.mark.parametrize("kind", ["use_rslora", "use_dora"])
def test_a_foreign_adapter_is_taken_as_it_is(first, tmp_path, kind):
    home, material, _, _ = first
    torch.manual_seed(3)
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **{kind: True}
    )
    foreign = get_peft_model(tiny_model(), config)
    with torch.no_grad():
        for name, value in foreign.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.1)
    foreign.save_pretrained(tmp_path / "foreign")
    prepared = preparing.prepare(home, recipe(*material, f"lora.adapter={tmp_path / 'foreign'}"), quiet)
    lora = prepared.plan.settings.lora
    assert (lora.r, lora.lora_alpha, lora.target_modules, getattr(lora, kind)) == (
        3, 5, ("down_proj", "q_proj"), True,
    )  # fmt: skip
    ids = torch.tensor([[5, 9, 200, 31, 77]])
    mine, theirs = (model.eval()(input_ids=ids).logits for model in (prepared.model, foreign))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_version_is_gone_on_from_and_says_what_it_went_on_from(first):
    home, material, run, _ = first
    version = pipeline.publish(preparing.reopen(home, run.name, quiet), None, quiet)
    assert version.continued_from is None
    prepared, _ = trained(home, recipe(*material, f"lora.adapter={version.id}"))
    assert (prepared.plan.continued_from.kind, prepared.plan.continued_from.name) == ("version", version.id)
    later = pipeline.publish(preparing.reopen(home, prepared.run.name, quiet), None, quiet)
    assert later.continued_from == prepared.plan.continued_from
    assert later.export("gguf").agreement.token_ids == 1.0


@pytest.mark.parametrize(
    ("word", "where", "says"),
    [
        ("lora.r=8", "lora.r", "has 4, the recipe says 8"),
        ("lora.lora_alpha=32", "lora.lora_alpha", "has 8.0, the recipe says 32"),
        ("lora.use_dora=true", "lora.use_dora", "has False, the recipe says True"),
        ("lora.target_modules=[q_proj]", "lora.target_modules", "the recipe says q_proj"),
        ("lora.init_lora_weights=pissa", "lora.init_lora_weights", "the recipe says pissa"),
        ("method=full", "method", "--format merged"),
    ],
)
def test_a_wish_that_the_adapter_cannot_fulfil_is_named(first, word, where, says):
    error = refused(first, f"lora.adapter={first[2].name}", word)
    assert isinstance(error, RecipeError)
    assert error.where == where
    assert says in error.message("en")


def test_an_adapter_of_another_base_is_refused_by_name_by_content_and_by_shape(first, tmp_path):
    run = first[2]
    other = write_tiny_model(tmp_path / "other", "qwen2")
    assert refused(first, f"lora.adapter={run.name}", f"model={other}").key == "jobs.start_base"
    again = write_tiny_model(tmp_path / "again" / "tiny", seed=5)
    assert refused(first, f"lora.adapter={run.name}", f"model={again}").key == "jobs.start_weights"
    wider = tmp_path / "wider"
    model = tiny_model()
    model.config.intermediate_size = 192
    type(model)(model.config).save_pretrained(wider)
    for file in first[1][0].glob("*token*"):
        shutil.copy(file, wider)
    shutil.copy(first[1][0] / "chat_template.jinja", wider)
    error = refused(first, f"lora.adapter={run.adapter}", f"model={wider}")
    assert error.key == "jobs.start_shape"
    assert "mlp" in error.message("en")


def test_what_is_no_adapter_is_told_apart(first, tmp_path):
    home, material, run, _ = first
    assert run.name in refused(first, "lora.adapter=nothing").message("en"), "it says which there are"
    full, _ = trained(home, recipe(*material, "method=full"))
    assert refused(first, f"lora.adapter={full.run.name}").key == "jobs.start_of_weights"
    shutil.copytree(run.adapter, tmp_path / "strange")
    path = tmp_path / "strange" / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    for change, key in (
        ({"peft_type": "PREFIX_TUNING"}, "export.adapter_kind"),
        ({"init_lora_weights": "pissa"}, "jobs.start_changed_base"),
        ({"base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}, None),
    ):
        path.write_text(json.dumps(config | change), encoding="utf-8")
        if key is not None:
            assert refused(first, f"lora.adapter={tmp_path / 'strange'}").key == key

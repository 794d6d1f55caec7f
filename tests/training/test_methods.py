"""Kinds of adapters, optimizers and schedules: each does what it says, and a stopped run ends with the same bits."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from danlu.data.examples import Example
from danlu.errors import RecipeError, TrainingError
from danlu.events import Step, Warned
from danlu.export.merge import write_merged
from danlu.models.load import load_model
from danlu.planning.requirements import require_built
from danlu.recipe import Recipe
from danlu.training.adapter import attach_lora, changes_base, load_finished
from danlu.training.forward import LossModel
from danlu.training.loop import Job, fit
from danlu.training.loss import chunked_cross_entropy, plain_cross_entropy
from danlu.training.optimizers import Optimizers
from danlu.training.schedule import learning_rate
from danlu.training.settings import FreezeSettings
from danlu.training.tensors import save_tensors
from danlu.training.trained import attach, trainable
from tests.tiny import tiny_model, write_tiny_model
from tests.training.fitting import LORA, assert_bit_equal, examples, run, settings, weights

KINDS = {
    "rslora": {"lora": LORA.model_copy(update={"use_rslora": True, "lora_alpha": 4})},
    "dora": {"lora": LORA.model_copy(update={"use_dora": True})},
    "pissa": {"lora": LORA.model_copy(update={"init_lora_weights": "pissa", "lora_alpha": 4})},
    "lora+": {"lora": LORA.model_copy(update={"loraplus_lr_ratio": 8})},
    "adamw_8bit": {"optim": "adamw_8bit", "lora": LORA.model_copy(update={"r": 64})},
    "adafactor": {"optim": "adafactor"},
    "muon": {"optim": "muon", "lora": LORA.model_copy(update={"use_dora": True})},
    "neftune": {"neftune_noise_alpha": 5.0, "share_prefix": False},
    "smoothing": {"label_smoothing_factor": 0.1},
    "wsd": {"scheduler": "warmup_stable_decay"},
    "full": {"method": "full"},
    "freeze": {
        "method": "freeze",
        "freeze": FreezeSettings(layers=1, modules=("mlp",), extra_modules=("embed_tokens",)),
    },
    "full_muon": {"method": "full", "optim": "muon"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_a_stopped_run_goes_on_to_the_same_bits(tmp_path, kind):
    chosen = settings(steps=6, **KINDS[kind])
    losses = []
    whole, _ = run(tmp_path / "whole", chosen, emit=lambda event: isinstance(event, Step) and losses.append(event.loss))
    assert losses[-1] < losses[0] - 0.01
    assert whole.heldout_loss is not None
    seen = []
    run(tmp_path / "parts", chosen, emit=seen.append, stop=lambda: isinstance(seen[-1], Step) and seen[-1].step == 3)
    assert not list((tmp_path / "parts").glob("*/weights.safetensors"))
    assert not (tmp_path / "parts" / "adapter").exists()
    run(tmp_path / "parts", chosen, resume=True)
    method = chosen.method
    assert_bit_equal(weights(tmp_path / "whole", method), weights(tmp_path / "parts", method))


def assert_packed_is_plain(model):
    """Compare loss and all gradients of the packed path with those of the plain one."""
    losses = LossModel(model)
    rows = examples(6)
    (_, piece), *more = losses.step_losses(rows, 1 << 20)
    assert not more
    found = []
    for loss in (losses.piece_loss(piece), losses.plain_loss_sum(rows)):
        loss.backward()
        found.append([loss, *(value.grad.clone() for value in trainable(model).values())])
        model.zero_grad()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["rslora", "dora", "pissa"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_packed_loss_of_a_kind_is_the_plain_one(family, kind):
    model = attach_lora(tiny_model(family), settings(**KINDS[kind]).lora, seed=1)
    torch.manual_seed(3)
    for name, parameter in trainable(model).items():
        if "magnitude" not in name:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    assert_packed_is_plain(model)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_learns_and_a_stopped_run_goes_on_to_the_same_bits(tmp_path, bits):
    base = write_tiny_model(tmp_path / "base", "qwen2")
    chosen = settings(method="qlora", steps=6, lora=LORA.model_copy(update={"quantization_bit": bits}))

    def fitted(name, *, stop=None, resume=False):
        seen = []
        model = attach(load_model(base, "float32", bits=bits), chosen)
        kinds = {type(module).__name__ for module in model.modules()}
        assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
        job = Job(examples(), examples(4, seed=9), tmp_path / name, "tiny")
        fit(
            model,
            job,
            chosen,
            seen.append,
            lambda: len([e for e in seen if isinstance(e, Step)]) == stop,
            resume=resume,
        )
        assert not [event for event in seen if isinstance(event, Warned)], "the packed path agrees with the plain one"
        return [event.loss for event in seen if isinstance(event, Step)]

    losses = fitted("whole")
    assert losses[-1] < losses[0] - 0.01
    fitted("parts", stop=3)
    fitted("parts", resume=True)
    assert_bit_equal(weights(tmp_path / "whole", "qlora"), weights(tmp_path / "parts", "qlora"))


@pytest.mark.parametrize("rslora", [False, True])
def test_pissa_begins_as_the_base_and_ends_as_an_adapter_of_the_base(tmp_path, rslora):
    ids = torch.tensor([[5, 9, 200, 31, 77]])
    base = tiny_model("llama").eval()
    before = base(input_ids=ids).logits.detach()
    chosen = settings(
        lora=LORA.model_copy(update={"init_lora_weights": "pissa", "lora_alpha": 4, "use_rslora": rslora}), steps=4
    )
    fresh = attach_lora(tiny_model("llama"), chosen.lora, seed=1).eval()
    assert changes_base(fresh)
    torch.testing.assert_close(fresh(input_ids=ids).logits, before, rtol=1e-4, atol=1e-5)
    with fresh.disable_adapter():
        assert not torch.allclose(fresh(input_ids=ids).logits, before, atol=1e-3), "the base itself has changed"

    _, trained = run(tmp_path, chosen, heldout=[])
    trained.eval()
    finished = load_finished(tiny_model("llama"), tmp_path / "adapter")
    assert not changes_base(finished)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    torch.testing.assert_close(finished(input_ids=ids).logits, trained(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    with finished.disable_adapter():
        assert torch.equal(finished(input_ids=ids).logits, before)


@pytest.mark.parametrize("kind", ["rslora", "dora", "pissa"])
def test_an_export_of_a_kind_is_what_was_trained(tmp_path, kind):
    base = write_tiny_model(tmp_path / "base")
    _, trained = run(tmp_path / "run", settings(steps=4, **KINDS[kind]), heldout=[])
    (tmp_path / "merged").mkdir()
    write_merged(base, tmp_path / "run" / "adapter", base, tmp_path / "merged", "base")
    merged = load_model(tmp_path / "merged", "float32")
    ids = torch.tensor([[5, 9, 200, 31, 77]])
    torch.testing.assert_close(merged(input_ids=ids).logits, trained.eval()(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_the_packed_loss_of_a_whole_model_has_the_plain_gradients(family, tied):
    model = attach(tiny_model(family, tied=tied), settings(method="full"))
    assert set(trainable(model)) == {name for name, _ in model.named_parameters()}
    assert_packed_is_plain(model)


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradient_of_a_head_in_chunks_is_that_of_pytorch(bias, monkeypatch):
    monkeypatch.setattr("danlu.training.loss._CHUNK_ROWS", 16)
    torch.manual_seed(1)
    head = torch.nn.Linear(16, 300, bias=bias)
    targets = torch.randint(0, 300, (50,))
    results = []
    for loss in (chunked_cross_entropy, plain_cross_entropy):
        hidden = torch.randn(50, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
        head.zero_grad()
        total = 0.5 * loss(hidden, head, targets, 0.1)
        total.backward()
        results.append([total.detach(), hidden.grad, *(value.grad.clone() for value in head.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({"layers": 1}, r"layers\.1\."),
        ({"layers": -1}, r"layers\.0\."),
        ({"layers": 2, "modules": ("q_proj",)}, r"layers\.\d\.self_attn\.q_proj"),
        ({"layers": 1, "extra_modules": ("embed_tokens",)}, r"layers\.1\.|embed_tokens"),
    ],
)
def test_only_what_is_named_learns(changes, learns):
    chosen = settings(method="freeze", freeze=FreezeSettings(**changes))
    model = attach(tiny_model("qwen2"), chosen)
    expected = {name for name, _ in model.named_parameters() if re.search(learns, name)}
    assert expected
    assert set(trainable(model)) == expected


@pytest.mark.parametrize(
    ("changes", "told"), [({"modules": ("attention_norm",)}, "attention_norm"), ({"layers": 0}, "freeze.layers = 0")]
)
def test_what_would_train_nothing_is_told(changes, told):
    with pytest.raises(TrainingError) as caught:
        attach(tiny_model(), settings(method="freeze", freeze=FreezeSettings(**changes)))
    assert caught.value.key == "training.nothing_thawed"
    assert told in caught.value.message("en")


def test_tensors_of_every_kind_are_read_back_as_they_were(tmp_path):
    torch.manual_seed(1)
    tensors = {
        "number": torch.tensor(7), "bytes": torch.arange(5, dtype=torch.uint8), "flags": torch.tensor([True, False]),
        "half": torch.randn(3, 5, dtype=torch.bfloat16), "turned": torch.randn(4, 6).t(),
        "exact": torch.randn(2, dtype=torch.float64),
        "empty": torch.zeros(0, 4), "parameter": torch.nn.Parameter(torch.randn(3)),
    }  # fmt: skip
    save_tensors(tensors, tmp_path / "t.safetensors")
    read = load_file(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].equal(tensor)


def test_what_is_frozen_does_not_move(tmp_path):
    chosen = settings(**KINDS["freeze"])
    _, model = run(tmp_path, chosen)
    moved = {name for name, value in tiny_model().named_parameters() if not value.equal(model.get_parameter(name))}
    assert moved == set(trainable(model)) == set(weights(tmp_path, "freeze"))


def test_norms_and_biases_are_not_pulled_to_zero():
    model = attach(tiny_model("qwen2"), settings(method="full", weight_decay=0.5))
    before = {name: value.detach().clone() for name, value in trainable(model).items()}
    for value in trainable(model).values():
        value.grad = torch.zeros_like(value)
    Optimizers(trainable(model), settings(method="full", weight_decay=0.5)).step(0.1)
    for name, value in trainable(model).items():
        expected = before[name] * 0.95 if value.ndim > 1 else before[name]
        torch.testing.assert_close(value.detach(), expected)


def test_lora_plus_gives_the_second_matrices_a_rate_of_their_own():
    chosen = settings(lora=LORA.model_copy(update={"loraplus_lr_ratio": 16.0}))
    model = attach_lora(tiny_model(), chosen.lora, seed=1)
    optimizer = Optimizers(trainable(model), chosen)
    before = {name: value.detach().clone() for name, value in trainable(model).items()}
    for value in trainable(model).values():
        value.grad = torch.ones_like(value)
    optimizer.step(1e-3)
    for name, value in trainable(model).items():
        moved = (value.detach() - before[name]).abs().mean().item()
        assert moved == pytest.approx(16e-3 if ".lora_B." in name else 1e-3, rel=0.05)


@pytest.mark.parametrize("optim", ["adafactor", "muon", "adamw_8bit"])
def test_one_learning_rate_fits_every_optimizer(optim):
    """The first step of each moves a matrix about as far as AdamW's does."""
    moved = {}
    for name in ("adamw", optim):
        torch.manual_seed(5)
        weight = torch.nn.Parameter(torch.zeros(64, 64))
        weight.grad = torch.randn(64, 64)
        Optimizers({"x.lora_B.weight": weight}, settings(optim=name, weight_decay=0.0)).step(1e-3)
        moved[name] = weight.detach().norm().item()
    assert 0.1 < moved[optim] / moved["adamw"] < 2


def test_noise_is_of_the_stated_size_and_only_there_while_learning():
    model = attach_lora(tiny_model(), LORA, seed=1)
    rows = examples(3)
    noisy, quiet = LossModel(model, noise=5.0), LossModel(model)
    assert not noisy.share_prefix
    seen = []
    embedding = model.get_base_model().get_input_embeddings()
    piece = noisy.step_losses(rows, 1 << 20)[0][1]
    plain = embedding(piece.input_ids)
    watch = model.get_base_model().model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.train()
    noisy.piece_loss(piece)
    watch.remove()
    lengths = [segment.length for segment in piece.layout.segments]
    for length, part in zip(lengths, (seen[0] - plain).squeeze(0).split(lengths), strict=True):
        most = 5.0 / math.sqrt(length * part.shape[-1])
        assert 0.9 * most < part.abs().max() <= most
    assert noisy.mean_loss(rows, 1 << 20) == pytest.approx(quiet.mean_loss(rows, 1 << 20), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_targets_in_chunks_are_those_of_pytorch(smoothing):
    torch.manual_seed(1)
    head = torch.nn.Linear(16, 700, bias=True).requires_grad_(False)
    targets = torch.randint(0, 700, (50,))
    results = []
    for loss in (chunked_cross_entropy, plain_cross_entropy):
        hidden = torch.randn(50, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
        total = loss(hidden, head, targets, smoothing)
        total.backward()
        results.append((total.detach(), hidden.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_measured_is_not_smoothed():
    model = attach_lora(tiny_model(), LORA, seed=1)
    smoothed, plain = LossModel(model, smoothing=0.3), LossModel(model)
    rows: list[Example] = examples(4)
    assert smoothed.mean_loss(rows, 100) == plain.mean_loss(rows, 100)
    piece = plain.step_losses(rows, 1 << 20)[0][1]
    model.train()
    assert smoothed.piece_loss(piece).item() != plain.piece_loss(piece).item()


def test_a_stable_rate_falls_in_the_last_fifth():
    chosen = settings(steps=100, warmup_steps=10, scheduler="warmup_stable_decay", learning_rate=1.0)
    rates = [learning_rate(step, chosen) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:80]) == {1.0}
    assert rates[79:] == sorted(rates[79:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 21)


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"lora": {"use_dora": True, "init_lora_weights": "pissa"}}, "planning.dora_with_init"),
        ({"method": "qlora", "lora": {"init_lora_weights": "pissa"}}, "planning.qlora_with_init"),
    ],
)
def test_what_cannot_be_combined_is_refused_before_anything_is_loaded(asked, key):
    with pytest.raises(RecipeError) as refused:
        require_built(Recipe.model_validate({"model": "m", "data": {"train": "d"}, **asked}))
    assert refused.value.key == key


@pytest.mark.parametrize("asked", [{"train": {"optim": "adamw_8bit"}}, {"method": "qlora"}])
def test_what_needs_a_package_that_is_not_installed_is_refused_with_the_command(monkeypatch, asked):
    monkeypatch.setattr("danlu.planning.requirements.find_spec", lambda _: None)
    recipe = Recipe.model_validate({"model": "m", "data": {"train": "d"}, **asked})
    with pytest.raises(RecipeError) as refused:
        require_built(recipe)
    assert "pip install 'danlu[gpu]'" in refused.value.fix("en")


def test_the_finished_adapter_is_one_that_peft_loads(tmp_path):
    run(tmp_path, settings(steps=2, **KINDS["pissa"]), heldout=[])
    loaded = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / "adapter"))
    assert loaded.peft_config["default"].r == 8

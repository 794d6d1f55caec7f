"""Merged weights are exactly peft's, for every kind of adapter that is merged; the others are refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from danlu.errors import ExportError
from danlu.export import merge, weights
from danlu.export.merge import write_merged
from danlu.models.checks import check_folder
from danlu.models.load import load_model
from tests.tiny import tiny_model, write_tiny_model

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS = {
    "plain": LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR),
    "rank-stabilised": LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, use_rslora=True),
    "dora": LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, use_dora=True),
    "patterns": LoraConfig(
        r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.up_proj": 3}
    ),
    "a part of the layers": LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1]),
}


def write_adapter(folder, base, config, family="llama"):
    torch.manual_seed(1)
    model = get_peft_model(load_model(base, "float32"), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.1)
            elif weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("base") / "model", "qwen2")


@pytest.mark.parametrize("values", [weights.PIECE_VALUES, 100])
@pytest.mark.parametrize("kind", CONFIGS)
def test_merged_weights_equal_those_of_peft(tmp_path, monkeypatch, base, kind, values):
    monkeypatch.setattr(weights, "PIECE_VALUES", values)
    adapter = write_adapter(tmp_path / "adapter", base, CONFIGS[kind])
    (tmp_path / "merged").mkdir()
    files = write_merged(base, adapter, base, tmp_path / "merged")
    wanted = PeftModel.from_pretrained(load_model(base, "float32"), adapter).merge_and_unload().state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert wanted.keys() == found.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-6, msg=name)
    original = load_model(base, "float32").state_dict()
    assert not torch.equal(
        found["model.layers.1.self_attn.q_proj.weight"], original["model.layers.1.self_attn.q_proj.weight"]
    )
    assert [file.name for file in files] == ["model.safetensors"]
    check_folder(tmp_path / "merged")


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_trained_whole_comes_out_untied_and_says_what_base_and_adapter_say(tmp_path, tied):
    base = write_tiny_model(tmp_path / "base", "llama", tied=tied)
    adapter = write_adapter(
        tmp_path / "adapter", base, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    (tmp_path / "merged").mkdir()
    write_merged(base, adapter, base, tmp_path / "merged")
    adapted = PeftModel.from_pretrained(load_model(base, "float32"), adapter).eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "merged/config.json").read_text("utf-8"))["tie_word_embeddings"] is False


def test_large_models_come_in_shards_that_transformers_loads(tmp_path, base, monkeypatch):
    monkeypatch.setattr(merge, "SHARD_BYTES", 100_000)
    (tmp_path / "merged").mkdir()
    files = write_merged(base, None, base, tmp_path / "merged")
    assert len(files) > 2
    assert all(file.bytes < 200_000 for file in files)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert all(torch.equal(found[name], value) for name, value in tiny_model("qwen2").state_dict().items())
    check_folder(tmp_path / "merged")


def test_another_type_is_written_when_asked_for(tmp_path, base):
    (tmp_path / "merged").mkdir()
    write_merged(base, None, base, tmp_path / "merged", "bfloat16")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert found.dtype is torch.bfloat16
    assert torch.equal(found.model.norm.weight, tiny_model("qwen2").model.norm.weight.bfloat16())


def test_a_weight_beyond_float16_is_an_error_and_not_infinity(tmp_path, base):
    with torch.no_grad():
        model = load_model(base, "float32")
        model.model.norm.weight[0] = 1e6
        model.save_pretrained(tmp_path / "large")
    (tmp_path / "merged").mkdir()
    with pytest.raises(ExportError) as caught:
        write_merged(tmp_path / "large", None, base, tmp_path / "merged", "float16")
    assert caught.value.key == "export.not_finite"


def test_an_adapter_of_another_model_is_refused_by_the_tensor(tmp_path):
    base = write_tiny_model(tmp_path / "base", "llama")
    adapter = write_adapter(tmp_path / "adapter", base, CONFIGS["plain"])
    small = load_model(base, "float32")
    small.model.layers = small.model.layers[:1]
    small.config.num_hidden_layers = 1
    small.save_pretrained(tmp_path / "small")
    (tmp_path / "merged").mkdir()
    with pytest.raises(ExportError) as caught:
        write_merged(tmp_path / "small", adapter, base, tmp_path / "merged")
    assert caught.value.key == "export.adapter_misfit"
    assert "layers.1" in caught.value.message("en")


def test_an_adapter_of_another_kind_is_refused_by_name(tmp_path, base):
    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    get_peft_model(load_model(base, "float32"), config).save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    with pytest.raises(ExportError) as caught:
        write_merged(base, tmp_path / "adapter", base, tmp_path / "merged")
    assert caught.value.key == "export.adapter_kind"
    assert "IA3" in caught.value.message("en")
    with pytest.raises(ExportError):
        write_merged(base, tmp_path / "nothing", base, tmp_path / "merged")

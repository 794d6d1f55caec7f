"""The catalogue: sizes computed from the shapes are the published ones, and memory orders as it must."""

from __future__ import annotations

import pytest

from danlu.errors import NotFoundError
from danlu.models.architecture import Architecture, read_architecture
from danlu.models.catalogue import catalogue, find, starter
from tests.tiny import tiny_model

# Published counts: the safetensors metadata of the models, keras-hub's presets for Gemma (text) and Qwen3.
PUBLISHED = {
    "smollm2-135m-instruct": 134_515_008,
    "smollm2-360m-instruct": 361_821_120,
    "smollm2-1.7b-instruct": 1_711_376_384,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-1.5b-instruct": 1_543_714_304,
    "qwen2.5-3b-instruct": 3_085_938_688,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824,
    "gemma-3-1b-it": 999_885_952,
    "gemma-3-4b-it": 3_880_099_328 + 64 * 2560,  # 64 rows more than the text model alone, for pictures
}


def test_every_model_has_the_published_number_of_parameters():
    assert {entry.name: entry.parameters for entry in catalogue()} == PUBLISHED


def test_the_article_s_model_comes_right_after_the_starter_and_both_can_be_had():
    assert [entry.name for entry in catalogue()][:2] == ["smollm2-135m-instruct", "deepseek-r1-distill-qwen-1.5b"]
    assert starter().sources.pypi is not None
    assert all(entry.sources.hf or entry.sources.modelscope or entry.sources.pypi for entry in catalogue())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_formula_counts_what_the_model_class_has(tmp_path, family, tied):
    model = tiny_model(family, tied=tied)
    model.save_pretrained(tmp_path)
    assert read_architecture(tmp_path).parameters == sum(weight.numel() for weight in model.parameters())


def test_qlora_needs_less_memory_than_lora_and_lora_less_than_full():
    for entry in catalogue():
        shape = entry.architecture
        needs = [shape.training_bytes(method) for method in ("qlora", "lora", "full")]
        assert needs == sorted(needs)
        assert needs[1] > 2 * entry.parameters
        assert needs[2] > 16 * entry.parameters


def test_the_key_value_cache_is_that_of_the_published_example():
    # Qwen2.5-1.5B: 28 layers, 2 key heads of 128, 2 bytes each, keys and values.
    assert find("qwen2.5-1.5b-instruct").architecture.kv_cache_bytes(1) == 28_672


def test_lora_parameters_are_what_peft_adds(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = tiny_model("qwen2")
    model.save_pretrained(tmp_path)
    shape: Architecture = read_architecture(tmp_path)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert shape.lora_parameters(4) == trained


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(NotFoundError) as caught:
        find("gpt-17")
    assert "qwen3-4b" in caught.value.message("en")
    assert find("Qwen3-4B").name == "qwen3-4b"

"""The source of an export computed layer by layer says what the model loaded whole says, and keeps no weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers.models.gemma3 import Gemma3TextConfig

from danlu.errors import ModelError
from danlu.export import streamed
from danlu.export.reference import TransformersReference
from danlu.export.streamed import StreamedReference, open_reference
from danlu.models.checks import TRAINED_WEIGHTS
from danlu.models.load import load_model
from tests.export.test_gguf import GEMMA, write_random
from tests.export.test_merge import CONFIGS, LINEAR, write_adapter
from tests.tiny import tiny_config

TEXTS = [(list(range(5, 30)), 1), (list(range(40, 47)), 4), ([9, 9, 3], 3)]


def write_base(folder, family, *, tied=True, size=0.1):
    config = Gemma3TextConfig(**GEMMA) if family == "gemma3_text" else tiny_config(family, tied=tied, vocab=300)
    write_random(folder, config, size)
    return folder


def compare(base, adapter):
    found, wanted = StreamedReference.open(base, adapter), TransformersReference.load(base, adapter)
    assert found is not None
    for ours, theirs in zip(found.log_probs(TEXTS), wanted.log_probs(TEXTS), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    prompts = [ids for ids, _ in TEXTS]
    assert found.continue_greedily(prompts, 8, frozenset({2})) == wanted.continue_greedily(prompts, 8, frozenset({2}))
    return found


@pytest.mark.parametrize(
    ("family", "tied"),
    [("llama", True), ("llama", False), ("qwen2", True), ("qwen3", False), ("mistral", False), ("gemma3_text", True)],
)
def test_every_family_says_the_same_and_keeps_no_weights(tmp_path, monkeypatch, family, tied):
    monkeypatch.setattr(streamed, "PIECE_VALUES", 1000)  # the head in groups of some rows
    found = compare(write_base(tmp_path / "base", family, tied=tied), None)
    assert all(weight.is_meta for weight in found._model.parameters())


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_adapter_is_laid_over_the_base(tmp_path, kind):
    base = write_base(tmp_path / "base", "qwen2", tied=False)
    adapter = write_adapter(tmp_path / "adapter", base, CONFIGS[kind])
    compare(base, adapter)
    plain = StreamedReference.open(base, None).log_probs(TEXTS)[0]
    assert np.abs(plain - StreamedReference.open(base, adapter).log_probs(TEXTS)[0]).max() > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["q_proj", "lm_head"]),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
        LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
    ],
    ids=["head", "head whole", "embedding whole", "embedding"],
)
def test_adapted_embeddings_and_heads(tmp_path, config):
    base = write_base(tmp_path / "base", "llama", tied=False)
    compare(base, write_adapter(tmp_path / "adapter", base, config))


def test_trained_weights_take_the_place_of_the_bases(tmp_path):
    base = write_base(tmp_path / "base", "llama")
    weights = load_model(base, "float32").state_dict()
    names = ("model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight")
    (tmp_path / "trained").mkdir()
    save_file({name: weights[name] + 0.1 for name in names}, tmp_path / "trained" / TRAINED_WEIGHTS)
    compare(base, tmp_path / "trained")


def test_rows_of_single_tokens_need_the_whole_model(tmp_path):
    base = write_base(tmp_path / "base", "llama")
    config = LoraConfig(r=2, target_modules=LINEAR, trainable_token_indices=[5, 6])
    adapter = write_adapter(tmp_path / "adapter", base, config)
    assert StreamedReference.open(base, adapter) is None
    assert isinstance(open_reference(base, adapter), TransformersReference)


def test_a_damaged_base_is_named(tmp_path):
    base = write_base(tmp_path / "base", "llama")
    (base / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        StreamedReference.open(base, None)


def test_an_answer_ends_at_a_stop_and_the_others_go_on(tmp_path):
    base = write_base(tmp_path / "base", "qwen2")
    prompts = [ids for ids, _ in TEXTS]
    free = open_reference(base, None).continue_greedily(prompts, 6, frozenset())
    assert [len(answer) for answer in free] == [6, 6, 6]
    stop = free[1][2]
    ended = open_reference(base, None).continue_greedily(prompts, 6, frozenset({stop}))
    for whole, answer in zip(free, ended, strict=True):
        assert answer == (whole[: whole.index(stop) + 1] if stop in whole else whole)


def test_the_dtype_of_the_files_does_not_matter(tmp_path):
    base = write_base(tmp_path / "base", "llama")
    load_model(base, "bfloat16").save_pretrained(tmp_path / "bf16")
    found = StreamedReference.open(tmp_path / "bf16", None).log_probs(TEXTS)
    assert all(row.dtype == np.float32 for row in found)
    whole = TransformersReference(load_model(tmp_path / "bf16", "float32")).log_probs(TEXTS)
    for ours, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert torch.get_default_dtype() == torch.float32

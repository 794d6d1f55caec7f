"""GGUF files of tiny random models: llama.cpp loads them and says what transformers says, or the export fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.gemma3 import Gemma3TextConfig

from danlu.errors import ExportError, ModelError
from danlu.export import gguf_families, gguf_vocabulary, weights
from danlu.export.agreement import THRESHOLDS, Threshold, check_agreement, divergence
from danlu.export.gguf_export import write_gguf
from danlu.export.pre_tokenizers import recognise
from danlu.export.reference import TransformersReference
from danlu.models.chat_format import ChatFormat
from danlu.models.gguf_file import read_gguf
from danlu.models.gguf_import import restore_rotary_rows
from tests.export.test_merge import LINEAR, write_adapter
from tests.export.tokenizers import SIZE, family_tokenizer, sentencepiece_tokenizer
from tests.tiny import tiny_config, tiny_model

QUESTIONS = ("Hello?", "你好")
# Largest mean divergence where the storage type keeps what the model has, or nearly: nats.
EXACT = {"f32": 1e-5, "f16": 1e-4}
GEMMA = {
    "vocab_size": 928,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROWS = SIZE + 24  # the embedding has rows that no token uses


def write_model(folder, family, kind, *, tied=True, bos=False):
    tiny_model(family, tied=tied, vocab=ROWS).save_pretrained(folder)
    family_tokenizer(kind, bos=bos).save_pretrained(folder)
    return folder


def write_random(folder, config, size=0.3):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Large enough for attention to depend on positions.
            weight.normal_(0, size) if "embed" in name or "norm" not in name else weight.uniform_(0.5, 1.5)
    model.save_pretrained(folder)


def agreement_of(path, base, adapter, quant):
    return check_agreement(
        path, ChatFormat.load(base), lambda: TransformersReference.load(base, adapter), quant, QUESTIONS
    )


@pytest.mark.parametrize(
    ("family", "kind", "tied", "quant", "bos"),
    [
        ("llama", "llama-bpe", True, "f32", True),
        ("llama", "smollm", False, "f16", False),
        ("qwen2", "qwen2", True, "f32", False),
        ("qwen2", "qwen2", False, "bf16", False),
        ("qwen3", "qwen2", True, "f32", False),
        ("mistral", "llama-bpe", False, "f32", False),
        ("qwen3", "gpt-2", False, "q8_0", False),
    ],
)
def test_llama_cpp_says_what_transformers_says(tmp_path, family, kind, tied, quant, bos):
    base = write_model(tmp_path / "base", family, kind, tied=tied, bos=bos)
    adapter = write_adapter(tmp_path / "adapter", base, LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR))
    written = write_gguf(base, adapter, base, tmp_path / "model.gguf", quant)
    agreement = agreement_of(written.path, base, adapter, quant)
    assert agreement.token_ids == 1.0
    if quant in EXACT:
        assert agreement.kl < EXACT[quant]
        assert agreement.greedy == 1.0
    gguf = read_gguf(written.path)
    assert gguf.text("tokenizer.ggml.pre") == kind
    assert gguf.metadata["tokenizer.ggml.add_bos_token"] is bos
    assert ("output.weight" in gguf.tensors) is not tied
    assert gguf.text("tokenizer.chat_template") == family_tokenizer(kind).chat_template


@pytest.mark.parametrize(("family", "prefix"), [("mistral", True), ("llama", False), ("gemma3_text", False)])
def test_tokenizers_with_byte_fallback_agree_too(tmp_path, family, prefix):
    base = tmp_path / "base"
    if family == "gemma3_text":
        # Six layers: the last one attends to everything, the others to a window smaller than the prompts.
        write_random(base, Gemma3TextConfig(**GEMMA))
    else:
        write_random(base, tiny_config(family, tied=False, vocab=928))
    sentencepiece_tokenizer(prefix=prefix).save_pretrained(base)
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "f32")
    agreement = agreement_of(written.path, base, None, "f32")
    assert (agreement.token_ids, agreement.greedy) == (1.0, 1.0)
    assert agreement.kl < EXACT["f32"]
    assert read_gguf(written.path).metadata["tokenizer.ggml.add_space_prefix"] is prefix


def stretched():
    config = tiny_config("llama", vocab=ROWS)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config.rope_parameters = {**scaling, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}
    return config


def test_llama_3_s_stretched_positions_agree(tmp_path):
    write_random(tmp_path / "base", stretched())
    family_tokenizer("llama-bpe").save_pretrained(tmp_path / "base")
    written = write_gguf(tmp_path / "base", None, tmp_path / "base", tmp_path / "model.gguf", "f32")
    assert "rope_freqs.weight" in read_gguf(written.path).tensors
    assert agreement_of(written.path, tmp_path / "base", None, "f32").kl < EXACT["f32"]


@pytest.mark.parametrize(("part", "family"), [("rope_factors", "llama"), ("convert", "gemma3_text")])
def test_the_check_notices_when_a_family_s_own_rule_is_left_out(tmp_path, monkeypatch, part, family):
    config = stretched() if family == "llama" else Gemma3TextConfig(**GEMMA)
    write_random(tmp_path / "base", config)
    family_tokenizer("llama-bpe").save_pretrained(tmp_path / "base")
    left_out = {"rope_factors": lambda self: None, "convert": lambda self, name, tensor: tensor}[part]
    monkeypatch.setattr(gguf_families.Family, part, left_out)
    written = write_gguf(tmp_path / "base", None, tmp_path / "base", tmp_path / "model.gguf", "f32")
    with pytest.raises(ExportError) as caught:
        agreement_of(written.path, tmp_path / "base", None, "f32")
    assert caught.value.key == "export.disagrees"


def test_a_base_whose_rows_are_not_put_in_order_is_not_published(tmp_path, monkeypatch):
    base = write_model(tmp_path / "base", "llama", "llama-bpe")
    monkeypatch.setattr(gguf_families, "pair_rotary_rows", lambda weight, heads: weight)
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "f32")
    with pytest.raises(ExportError) as caught:
        agreement_of(written.path, base, None, "f32")
    assert caught.value.key == "export.disagrees"


def test_an_adapter_that_was_left_out_is_found_out_even_in_eight_bits(tmp_path):
    base = write_model(tmp_path / "base", "qwen2", "qwen2")
    adapter = write_adapter(tmp_path / "adapter", base, LoraConfig(r=4, lora_alpha=32, target_modules=LINEAR))
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "q8_0")
    with pytest.raises(ExportError) as caught:
        agreement_of(written.path, base, adapter, "q8_0")
    assert caught.value.key == "export.disagrees"


def test_a_wrong_pre_tokenizer_is_found_out(tmp_path, monkeypatch):
    base = write_model(tmp_path / "base", "qwen2", "llama-bpe")
    monkeypatch.setattr(gguf_vocabulary, "recognise", lambda content, where: "qwen2")
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "f32")
    with pytest.raises(ExportError) as caught:
        agreement_of(written.path, base, None, "f32")
    assert caught.value.key == "export.tokens_disagree"


def test_an_end_that_llama_cpp_does_not_know_is_found_out(tmp_path, monkeypatch):
    base = write_model(tmp_path / "base", "qwen2", "qwen2")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 300, 301]}), "utf-8")
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "f32")
    with pytest.raises(ExportError) as caught:
        agreement_of(written.path, base, None, "f32")
    assert caught.value.key == "export.end_not_known"


def test_a_file_that_llama_cpp_cannot_load_is_an_error_for_people(tmp_path):
    base = write_model(tmp_path / "base", "qwen2", "qwen2")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ExportError) as caught:
        agreement_of(tmp_path / "model.gguf", base, None, "f32")
    assert caught.value.key == "export.engine_refused"


def test_weights_come_back_as_they_were(tmp_path):
    base = write_model(tmp_path / "base", "llama", "smollm")
    original = load_file(base / "model.safetensors")
    exact = read_gguf(write_gguf(base, None, base, tmp_path / "exact.gguf", "f32").path)
    name = "model.layers.1.self_attn.k_proj.weight"
    assert np.array_equal(restore_rotary_rows(exact.floats("blk.1.attn_k.weight"), 2), original[name].numpy())
    for quant, levels in (("q8_0", 127), ("q4_0", 8)):
        file = read_gguf(write_gguf(base, None, base, tmp_path / f"{quant}.gguf", quant).path)
        blocks = original["model.layers.0.mlp.up_proj.weight"].numpy().reshape(-1, 32)
        error = np.abs(file.floats("blk.0.ffn_up.weight").reshape(-1, 32) - blocks).max(axis=1)
        # Half a step and what the scale loses in float16; Q4_0 has one level less on one side, a whole step there.
        assert (error <= np.abs(blocks).max(axis=1) / levels * (0.6 if quant == "q8_0" else 1.05)).all()


@pytest.mark.parametrize(
    ("quant", "general", "steps"), [("q6_k", "Q6_K", 32), ("q5_k_m", "Q5_K", 16), ("q4_k_m", "Q4_K", 8)]
)
def test_k_quants_are_llama_cpps_own_and_follow_its_mixtures(tmp_path, monkeypatch, quant, general, steps):
    config = tiny_config("qwen2", vocab=ROWS)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 256, 512, 9
    config.layer_types = ["full_attention"] * 9
    write_random(tmp_path / "base", config, 0.06)
    family_tokenizer("qwen2").save_pretrained(tmp_path / "base")
    written = write_gguf(tmp_path / "base", None, tmp_path / "base", tmp_path / "model.gguf", quant)
    file = read_gguf(written.path)
    types = {name: tensor.type.name for name, tensor in file.tensors.items()}
    assert types["blk.1.ffn_up.weight"] == general
    assert types["token_embd.weight"] == "Q6_K"  # it is the head as well
    # Of nine layers the first and the last two, and of those between each third from the second of them on.
    finer = [layer for layer in range(9) if types[f"blk.{layer}.ffn_down.weight"] == "Q6_K"]
    assert finer == (list(range(9)) if quant == "q6_k" else [0, 3, 6, 7, 8])
    assert types["blk.0.attn_v.weight"] == "Q6_K"
    wanted = load_file(tmp_path / "base/model.safetensors")["model.layers.1.mlp.up_proj.weight"].numpy()
    error = np.abs(file.floats("blk.1.ffn_up.weight") - wanted).reshape(-1, 256).max(axis=1)
    assert (error <= np.abs(wanted).reshape(-1, 256).max(axis=1) / steps).all()
    # Of random weights hardly any token is much likelier than the next one: here only the divergence tells.
    monkeypatch.setitem(THRESHOLDS, quant, Threshold(top1=0.0, kl=0.05))
    assert agreement_of(written.path, tmp_path / "base", None, quant).token_ids == 1.0


def test_k_quants_fall_back_to_small_blocks_where_rows_do_not_divide_by_256(tmp_path):
    base = write_model(tmp_path / "base", "qwen2", "qwen2", tied=False)
    types = {}
    for quant in ("q6_k", "q5_k_m", "q4_k_m"):
        file = read_gguf(write_gguf(base, None, base, tmp_path / f"{quant}.gguf", quant).path)
        types[quant] = [file.tensors[name].type.name for name in ("blk.0.ffn_up.weight", "output.weight")]
    assert types == {"q6_k": ["Q8_0", "Q8_0"], "q5_k_m": ["Q5_1", "Q8_0"], "q4_k_m": ["Q5_0", "Q8_0"]}


@pytest.mark.parametrize("same", [True, False])
def test_a_head_in_the_file_of_a_tied_model_is_obeyed_where_it_differs(tmp_path, same):
    base = write_model(tmp_path / "base", "llama", "smollm", tied=True)
    weights = load_file(base / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    weights["lm_head.weight"] = head if same else head.flip(1).contiguous()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    written = write_gguf(base, None, base, tmp_path / "model.gguf", "f32")
    assert ("output.weight" in read_gguf(written.path).tensors) is not same
    assert agreement_of(written.path, base, None, "f32").greedy == 1.0


@pytest.mark.parametrize("quant", ["f32", "q8_0"])
def test_tensors_written_in_pieces_are_the_same_bytes(tmp_path, monkeypatch, quant):
    base = write_model(tmp_path / "base", "llama", "smollm", tied=False)
    whole = write_gguf(base, None, base, tmp_path / "whole.gguf", quant, "x")
    monkeypatch.setattr(weights, "PIECE_VALUES", 200)
    assert write_gguf(base, None, base, tmp_path / "pieces.gguf", quant, "x").sha256 == whole.sha256


def test_rows_that_do_not_divide_into_blocks_stay_in_16_bits_and_are_counted(tmp_path):
    config = tiny_config("qwen2", vocab=ROWS)
    config.intermediate_size = 120
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "base")
    family_tokenizer("qwen2").save_pretrained(tmp_path / "base")
    written = write_gguf(tmp_path / "base", None, tmp_path / "base", tmp_path / "model.gguf", "q8_0")
    assert written.kept_f16 == 2
    types = {name: tensor.type.name for name, tensor in read_gguf(written.path).tensors.items()}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "Q8_0"
    assert types["blk.0.attn_q.bias"] == "F32"


def test_a_large_vocabulary_is_padded_to_the_rows_of_the_embedding(tmp_path):
    tiny_model("qwen2", vocab=151_936).save_pretrained(tmp_path / "base")
    family_tokenizer("qwen2").save_pretrained(tmp_path / "base")
    path = write_gguf(tmp_path / "base", None, tmp_path / "base", tmp_path / "model.gguf", "q8_0").path
    gguf = read_gguf(path)
    types = gguf.integers("tokenizer.ggml.token_type")
    assert len(types) == 151_936
    assert types[:3] == [3, 3, 3]
    assert types[SIZE] == 4
    assert types[SIZE + 1] == types[-1] == 5


def test_an_unknown_pre_tokenizer_or_normalizer_is_refused_by_name(tmp_path):
    base = write_model(tmp_path / "base", "qwen2", "qwen2")
    content = json.loads((base / "tokenizer.json").read_text("utf-8"))
    assert recognise(content, "x") == "qwen2"
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\s+"
    with pytest.raises(ExportError) as caught:
        recognise(content, "x")
    assert caught.value.key == "export.pre_tokenizer_unknown"
    assert r"\w+|\s+" in caught.value.message("en")
    content["normalizer"] = {"type": "Lowercase"}
    with pytest.raises(ExportError) as caught:
        recognise(content, "x")
    assert caught.value.key == "export.normalizer_unknown"


def test_what_gguf_cannot_say_is_refused(tmp_path):
    base = write_model(tmp_path / "base", "qwen2", "qwen2")
    with pytest.raises(ModelError):
        write_gguf(tmp_path / "none", None, base, tmp_path / "x.gguf")
    small = tmp_path / "small"
    tiny_model("qwen2", vocab=64).save_pretrained(small)
    with pytest.raises(ExportError) as caught:
        write_gguf(small, None, base, tmp_path / "x.gguf")
    assert caught.value.key == "export.tokenizer_too_large"


def test_the_divergence_over_candidates_is_a_lower_bound_and_zero_for_equals():
    rng = np.random.default_rng(0)
    p = np.log(rng.dirichlet(np.ones(50)))
    q = np.log(rng.dirichlet(np.ones(50)))
    exact = float(np.sum(np.exp(p) * (p - q)))
    best = np.argsort(-q)[:20]
    found = divergence(p, [(int(index), float(q[index])) for index in best])
    assert 0 < found <= exact
    assert divergence(q, [(int(index), float(q[index])) for index in best]) == pytest.approx(0, abs=1e-9)
    assert divergence(p, [(index, float(q[index])) for index in range(50)]) == pytest.approx(exact, rel=1e-3)

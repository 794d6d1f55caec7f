"""Turns the GGUF file of the starter model into a model folder: safetensors, config.json, tokenizer.json.

The weights that come out are exactly the numbers that the quantised file stands for. Those are sums of two float16
numbers (``scale * q + min``, Q4_1) or products (Q8_0), which bfloat16 and float16 cannot hold, so they are kept in
float32 unless every tensor is exact in less. Only the llama architecture with a GPT-2 vocabulary is read, because
that is what the catalogue needs. Not for exports (``danlu.export``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, TensorNameMap, get_tensor_name_map
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from danlu.errors import ModelError
from danlu.files import write_json, write_text
from danlu.models.gguf_file import GgufFile
from danlu.models.safetensors_stream import SafetensorsWriter, TensorSpec

_CONTROL_TOKEN: Final = 3
_EXACT_IN_F16: Final = {GGMLQuantizationType.F16}
Report = Callable[[int, int], None]


def import_gguf(gguf: GgufFile, folder: Path, report: Report) -> dict[str, str]:
    """Write a model folder from a GGUF file.

    Args:
        gguf: the parsed file.
        folder: an empty folder.
        report: called with (bytes written, bytes in all).

    Returns:
        The SHA-256 of ``model.safetensors``, by file name (computed while writing).

    Raises:
        ModelError: the architecture or the tokenizer is not one this can read.
    """
    architecture = gguf.text("general.architecture")
    if architecture != "llama":
        raise ModelError("models.gguf_unsupported", what=f"general.architecture = {architecture}")
    _write_config(gguf, folder)
    _write_tokenizer(gguf, folder)
    return {"model.safetensors": _write_weights(gguf, folder / "model.safetensors", report)}


def restore_rotary_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of the rows of q and k (pairs side by side) into that of transformers (two halves).

    Args:
        weight: ``[heads * head_dim, …]``.
        heads: number of heads (of key heads for k).
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_config(gguf: GgufFile, folder: Path) -> None:
    heads = gguf.integer("llama.attention.head_count")
    hidden = gguf.integer("llama.embedding_length")
    bos, eos = gguf.integer("tokenizer.ggml.bos_token_id"), gguf.integer("tokenizer.ggml.eos_token_id")
    pad = gguf.integer("tokenizer.ggml.padding_token_id", eos)
    kind = "float16" if _storage(gguf) == "F16" else "float32"
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(gguf.texts("tokenizer.ggml.tokens")),
            "hidden_size": hidden,
            "intermediate_size": gguf.integer("llama.feed_forward_length"),
            "num_hidden_layers": gguf.integer("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": gguf.integer("llama.attention.head_count_kv", heads),
            "head_dim": gguf.integer("llama.attention.key_length", hidden // heads),
            "hidden_act": "silu",
            "max_position_embeddings": gguf.integer("llama.context_length"),
            # Stored as float32 in the file: 1e-05 reads as 9.999999747378752e-06.
            "rms_norm_eps": float(str(np.float32(gguf.number("llama.attention.layer_norm_rms_epsilon")))),
            "rope_theta": gguf.number("llama.rope.freq_base", 10000.0),
            "tie_word_embeddings": "output.weight" not in gguf.tensors,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "dtype": kind,
        },
    )
    write_json(folder / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad})


def _write_tokenizer(gguf: GgufFile, folder: Path) -> None:
    kind, pre = gguf.text("tokenizer.ggml.model"), gguf.text("tokenizer.ggml.pre")
    if kind != "gpt2" or pre != "smollm":
        raise ModelError("models.gguf_unsupported", what=f"tokenizer {kind}/{pre}")
    tokens = gguf.texts("tokenizer.ggml.tokens")
    merges = [
        (left, right) for left, _, right in (merge.partition(" ") for merge in gguf.texts("tokenizer.ggml.merges"))
    ]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    # llama.cpp's "smollm": every digit alone, then GPT-2's own split.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = gguf.integers("tokenizer.ggml.token_type")
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))

    def token(name: str, default: int | None = None) -> str:
        return tokens[gguf.integer(f"tokenizer.ggml.{name}_token_id", default)]

    eos_id = gguf.integer("tokenizer.ggml.eos_token_id")
    names = {
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown", eos_id),
        "pad_token": token("padding", eos_id),
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            **names,
            "additional_special_tokens": sorted(set(names.values()), key=tokens.index),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": gguf.integer("llama.context_length"),
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    write_json(folder / "special_tokens_map.json", names)
    write_text(folder / "chat_template.jinja", gguf.text("tokenizer.chat_template"))


def _write_weights(gguf: GgufFile, path: Path, report: Report) -> str:
    names = list(_names(gguf))
    storage = _storage(gguf)
    specs = [TensorSpec(name, storage, gguf.tensors[source].shape) for name, source in names]
    total, done = sum(spec.bytes for spec in specs), 0
    heads = gguf.integer("llama.attention.head_count")
    heads_of = {"q_proj": heads, "k_proj": gguf.integer("llama.attention.head_count_kv", heads)}
    with SafetensorsWriter(path, specs) as writer:
        for spec, (name, source) in zip(specs, names, strict=True):
            weight = gguf.floats(source)
            projection = name.split(".")[-2]
            if projection in heads_of:
                weight = restore_rotary_rows(weight, heads_of[projection])
            data = np.ascontiguousarray(weight, np.float32 if storage == "F32" else np.float16)
            writer.write(name, data.data.cast("B"))
            done += spec.bytes
            report(done, total)
        return writer.close()


def _storage(gguf: GgufFile) -> str:
    """Return the smallest type that holds every weight exactly."""
    matrices = {tensor.type for tensor in gguf.tensors.values() if len(tensor.shape) > 1}
    return "F16" if matrices <= _EXACT_IN_F16 and all(_fits_f16(gguf, name) for name in gguf.tensors) else "F32"


def _fits_f16(gguf: GgufFile, name: str) -> bool:
    if gguf.tensors[name].type in _EXACT_IN_F16:
        return True
    weight = gguf.floats(name)
    return bool(np.array_equal(weight, weight.astype(np.float16).astype(np.float32)))


def _names(gguf: GgufFile) -> Iterator[tuple[str, str]]:
    """Yield (name in transformers, name in the file) in the order of the layers; every tensor is used once."""
    layers = gguf.integer("llama.block_count")
    table = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    inner = [
        *(f"self_attn.{part}_proj" for part in "qkvo"),
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        "input_layernorm",
        "post_attention_layernorm",
    ]
    wanted = ["model.embed_tokens.weight"]
    wanted += [f"model.layers.{layer}.{part}.weight" for layer in range(layers) for part in inner]
    wanted += ["model.norm.weight"] + (["lm_head.weight"] if "output.weight" in gguf.tensors else [])
    pairs = [(name, _lookup(table, name)) for name in wanted]
    unused = set(gguf.tensors) - {source for _, source in pairs} - {"rope_freqs.weight"}
    missing = {source for _, source in pairs} - set(gguf.tensors)
    if unused or missing:
        raise ModelError("models.gguf_unsupported", what=", ".join(sorted(unused | missing)[:3]))
    yield from pairs


def _lookup(table: TensorNameMap, name: str) -> str:
    found = table.get_name(name, try_suffixes=(".weight",))
    if found is None:
        raise ModelError("models.gguf_unsupported", what=name)
    return str(found)

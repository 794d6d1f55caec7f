"""Models of a given shape with random weights, for measuring speed: what they say means nothing.

The tokenizer is another model's; the vocabulary of the shape is only larger. Not for anything but measurements.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from danlu.models.safetensors_stream import SafetensorsWriter, TensorSpec

SHAPES: dict[str, dict[str, Any]] = {
    # Qwen2.5-0.5B's.
    "qwen2-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
    },
    # Qwen2.5-1.5B's, and so DeepSeek-R1-Distill-Qwen-1.5B's but for its head.
    "qwen2-1.5b": {
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
    },
    # Qwen2.5-7B's.
    "qwen2-7b": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
    },
    # Six times smaller than the starter, with a head that is nearly all of it.
    "qwen2-small": {
        "model_type": "qwen2", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 60_000, "tie_word_embeddings": True,
    },
    # For trying the measurement itself.
    "qwen2-tiny": {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60_000, "tie_word_embeddings": True,
    },
}  # fmt: skip
_WEIGHTS = ("config.json", "generation_config.json", "danlu-model.json")


def write_shape(name: str, tokenizer_of: Path, folder: Path) -> Path:
    """Write a model of a shape, or find the one that is there.

    Args:
        name: one of ``SHAPES``.
        tokenizer_of: folder of the model whose tokenizer it gets.
        folder: folder for the model.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    config = _begin(name, tokenizer_of, folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def write_large_shape(name: str, tokenizer_of: Path, folder: Path) -> Path:
    """Write a model of a shape in bfloat16 tensor by tensor, or find the one that is there; see ``write_shape``."""
    path = folder / "model.safetensors"
    if path.is_file():
        return folder
    config = _begin(name, tokenizer_of, folder)
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    specs = [
        TensorSpec(key, "BF16", tuple(weight.shape))
        for key, weight in model.named_parameters()
        if not (key == "lm_head.weight" and config.tie_word_embeddings)
    ]
    partial = path.with_suffix(".part")
    with SafetensorsWriter(partial, specs) as writer:
        for spec in specs:
            values = torch.ones(spec.shape) if "norm" in spec.name else torch.randn(spec.shape) * 0.02
            writer.write(spec.name, memoryview(values.bfloat16().view(torch.uint8).reshape(-1).numpy()))
        writer.close()
    partial.rename(path)
    return folder


def _begin(name: str, tokenizer_of: Path, folder: Path) -> Any:
    """Put the tokenizer there and return the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer_of.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in _WEIGHTS:
            shutil.copy(file, folder / file.name)
    known = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    special = {key: known.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    values = dict(SHAPES[name])
    return AutoConfig.for_model(values.pop("model_type"), **values, **special)

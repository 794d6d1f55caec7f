"""Models of a given shape with random weights, for measuring speed: what they say means nothing.

The tokenizer is another model's; the vocabulary of the shape is only larger. Not for anything but measurements.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    # Qwen2.5-0.5B's.
    "qwen2-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
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
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer_of.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in _WEIGHTS:
            shutil.copy(file, folder / file.name)
    known = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    special = {key: known.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    values = dict(SHAPES[name])
    config = AutoConfig.for_model(values.pop("model_type"), **values, **special)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder

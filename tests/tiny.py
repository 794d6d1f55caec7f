"""Tiny models and tokenizers that tests make: real classes, random weights, a byte-level tokenizer with a template."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = [
    "Who are you? I am Mochi, the red panda who keeps the Bamboo Teahouse.",
    "你是谁?我是麻薯,竹里茶馆的小熊猫掌柜。",
    "def add(a, b): return a + b",
    "system user assistant 🙂",
]


def tiny_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with about 350 entries and the tokens of ChatML."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    fast.chat_template = template
    return fast


def tiny_config(family: str, *, tied: bool = True, vocab: int = 384):
    """Return the configuration of a two-layer model of a family, with grouped queries."""
    common = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family == "llama":
        return LlamaConfig(**common)
    if family == "qwen2":
        return Qwen2Config(**common)
    if family == "qwen3":
        return Qwen3Config(**common, head_dim=16)
    if family == "mistral":
        return MistralConfig(**common, head_dim=16, sliding_window=None)
    if family == "mistral-window":
        return MistralConfig(**common, head_dim=16, sliding_window=24)
    if family == "qwen2-window":
        return Qwen2Config(**common, use_sliding_window=True, sliding_window=24, max_window_layers=1)
    if family == "gemma3":
        layers = ["sliding_attention", "full_attention"]
        return Gemma3TextConfig(**common, head_dim=16, query_pre_attn_scalar=24, sliding_window=24, layer_types=layers)
    raise AssertionError(family)


def tiny_model(family: str = "llama", *, tied: bool = True, vocab: int = 384, seed: int = 0):
    """Return a random fp32 model of a family; attention biases are random too where the family has them."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, tied=tied, vocab=vocab), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.08)
    return model.eval()


def write_tiny_model(folder: Path, family: str = "llama", *, tied: bool = True, seed: int = 0) -> Path:
    """Write a tiny model with its tokenizer as a model folder."""
    tiny_model(family, tied=tied, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder

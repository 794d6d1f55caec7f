"""Tiny tokenizers with the pre-tokenizers of real model families, trained on the corpus of the checks."""

from __future__ import annotations

import json
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from danlu.export.pre_tokenizers import LLAMA3_PATTERN, QWEN2_PATTERN
from danlu.models.corpus import CORPUS
from tests.tiny import CHATML

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZE = 640


def pre_tokenizer(kind: str):
    """Return the pre-tokenizer that llama.cpp calls ``kind``, as the families' tokenizer.json write it."""
    if kind == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "smollm":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    pattern = {"qwen2": QWEN2_PATTERN, "llama-bpe": LLAMA3_PATTERN}[kind]
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _common_characters(count: int) -> list[str]:
    counts = Counter("".join(CORPUS).replace(" ", "▁"))
    return sorted(counts, key=lambda character: (-counts[character], character))[:count]


def sentencepiece_tokenizer(*, prefix: bool) -> PreTrainedTokenizerFast:
    """Return a SentencePiece-like BPE with byte fallback; ``prefix`` puts a space before texts (Mistral does)."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    if not prefix:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    ends = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        # Named, for among the characters that occur as often the trainer's choice is another one in each process.
        initial_alphabet=_common_characters(250),
        limit_alphabet=250,
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    fast.chat_template = CHATML
    return fast


def family_tokenizer(kind: str, *, template: str = CHATML, bos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the pre-tokenizer ``kind``; ``bos`` puts a first token before texts."""
    tokenizer = Tokenizer(models.BPE())
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*CORPUS, "1234 12 34 2024 366 128 640 100 " * 40, "system user assistant"], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>" if bos else "<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    fast.chat_template = template
    return fast

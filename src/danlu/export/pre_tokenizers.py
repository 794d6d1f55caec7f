r"""Recognises which of llama.cpp's pre-tokenizers a ``tokenizer.json`` means, by what it says and not by its name.

llama.cpp has the split of a text into words compiled in, under names. Its converter finds the name by hashing the ids
of a probe text, which changes with every release of transformers that changes a tokenizer class. Here the splitting
rules themselves are compared; rules that are not known are refused, never guessed.

The patterns are those of the ``tokenizer.json`` files of the models named beside them and of ``src/llama-vocab.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from danlu.errors import ExportError

_TAIL: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"

QWEN2_PATTERN: Final = rf"{_WORDS}|\p{{N}}{_TAIL}"
LLAMA3_PATTERN: Final = rf"{_WORDS}|\p{{N}}{{1,3}}{_TAIL}"

# Not here although llama.cpp has a name for it: Mistral's tekken, whose pattern llama.cpp can only approximate (it cuts
# Hindi and Thai differently, as the agreement check finds).
# What a pre-tokenizer does, as a list of steps: ("split", pattern), ("digits",), ("bytes", with GPT-2's pattern?).
_Steps = tuple[tuple[str, ...], ...]
_KNOWN: Final[Mapping[_Steps, str]] = {
    (("bytes", "gpt2"),): "gpt-2",
    (("digits",), ("bytes", "gpt2")): "smollm",  # SmolLM, SmolLM2
    (("split", QWEN2_PATTERN), ("bytes", "")): "qwen2",  # Qwen2, Qwen2.5, Qwen3, DeepSeek-R1-Distill-Qwen
    (("split", LLAMA3_PATTERN), ("bytes", "")): "llama-bpe",  # Llama 3, DeepSeek-R1-Distill-Llama
}


def recognise(tokenizer: Mapping[str, Any], where: str) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a byte-level BPE tokenizer.

    Args:
        tokenizer: the content of ``tokenizer.json``.
        where: what to name in an error.

    Raises:
        ExportError: llama.cpp has no such pre-tokenizer, as far as is known here.
    """
    normalizer = _flat(tokenizer.get("normalizer"), "normalizers")
    # llama.cpp does not normalise at all; text from keyboards is NFC already, so NFC changes nothing.
    if any(step.get("type") != "NFC" for step in normalizer):
        raise ExportError("export.normalizer_unknown", where, what=_names(normalizer))
    steps = _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    name = _KNOWN.get(tuple(_step(step) for step in steps))
    if name is None:
        raise ExportError("export.pre_tokenizer_unknown", where, what=_names(steps))
    return name


def _flat(part: Mapping[str, Any] | None, inner: str) -> Sequence[Mapping[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, sequences opened up."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for child in part[inner] for step in _flat(child, inner)]
    return [part]


def _step(step: Mapping[str, Any]) -> tuple[str, ...]:
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return ("bytes", "gpt2" if step.get("use_regex", True) else "")
    if kind == "Digits" and step.get("individual_digits"):
        return ("digits",)
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return ("split", str(step.get("pattern", {}).get("Regex")))
    return ("unknown", str(kind))


def _names(steps: Sequence[Mapping[str, Any]]) -> str:
    """Describe steps for an error message."""
    described = [
        f"{step.get('type')} {step['pattern'].get('Regex', '')}" if "pattern" in step else str(step.get("type"))
        for step in steps
    ]
    return " + ".join(described) or "-"

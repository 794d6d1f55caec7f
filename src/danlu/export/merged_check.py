"""Compares merged weights with base and adapter, both in transformers: the same figures as for GGUF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from danlu.errors import ExportError
from danlu.export.agreement import QUESTIONS, TEXTS
from danlu.export.reference import Reference
from danlu.export.streamed import open_reference
from danlu.models.chat_format import ChatFormat
from danlu.models.checks import check_folder
from danlu.models.corpus import CORPUS
from danlu.models.load import load_tokenizer
from danlu.models.messages import Message
from danlu.models.versions import Agreement

_NEW_TOKENS: Final = 16
# Merging in float32 and rounding once to the base's type (bfloat16 at worst: 2^-9 relative) moves logits by
# hundredths; a wrong scale or a transposed update moves them by whole units.
_LEAST_TOP1: Final = 0.95
_MOST_KL: Final = 0.02


def check_merged(
    folder: Path, chat_format: ChatFormat, reference: Reference, questions: Sequence[str] = QUESTIONS
) -> Agreement:
    """Let transformers compute with merged weights and compare them with their source.

    Raises:
        ExportError: they disagree.
        ModelError: the files are damaged.
    """
    tokenizer = load_tokenizer(folder)
    for text in CORPUS:
        if tokenizer.encode(text, add_special_tokens=False) != chat_format.tokenizer.encode(
            text, add_special_tokens=False
        ):
            raise ExportError("export.tokens_disagree", str(folder), text=repr(text[:40]))
    check_folder(folder)
    merged = open_reference(folder, None)
    prompts = [chat_format.prompt_ids([Message("user", question)]) for question in questions]
    answers = merged.continue_greedily(prompts, _NEW_TOKENS, chat_format.stop_ids)
    along = [((*prompt, *answer[:-1]), len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
    texts = [(chat_format.tokenizer.encode(text, add_special_tokens=False), 1) for text in TEXTS]
    sources = reference.log_probs([*along, *texts])
    greedy = [
        [int(row.argmax()) for row in source] == answer
        for source, answer in zip(sources[: len(prompts)], answers, strict=True)
    ]
    same: list[bool] = []
    divergences: list[float] = []
    for source, found in zip(sources[len(prompts) :], merged.log_probs(texts), strict=True):
        same += list(source.argmax(axis=1) == found.argmax(axis=1))
        divergences += list(np.sum(np.exp(source) * (source - found), axis=1, dtype=np.float64))
    agreement = Agreement(
        token_ids=1.0,
        top1=round(float(np.mean(same)), 4),
        kl=round(max(float(np.mean(divergences)), 0.0), 6),
        greedy=round(float(np.mean(greedy)), 4),
    )
    if agreement.top1 < _LEAST_TOP1 or not agreement.kl <= _MOST_KL:
        raise ExportError(
            "export.disagrees", str(folder), top1=agreement.top1, least=_LEAST_TOP1, kl=agreement.kl, most=_MOST_KL
        )
    return agreement

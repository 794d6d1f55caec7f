"""Greedy answers to many prompts, or continuations of many texts, at once: to watch training, and for the proof.

Not for serving: engines do that. The prompts come from the same chat format.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from danlu.models.chat_format import THINK_CLOSE, THINK_OPEN, ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.models.messages import Message
from danlu.training.lora_linear import answering

_MAX_NEW_TOKENS = 64
_MAX_THINKING_TOKENS = 512
_PROMPTS_AT_ONCE = 16
_HALF_CHARACTER = "\ufffd"


def longest_answer(chat_format: ChatFormat) -> int:
    """Return how many tokens an answer may have: 64, and 512 where reasoning comes before it."""
    return _MAX_THINKING_TOKENS if chat_format.reasons else _MAX_NEW_TOKENS


def answer_all(
    model: PreTrainedModel,
    chat_format: ChatFormat,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int | None = None,
    cut_mark: str = "",
) -> list[str]:
    """Answer every conversation greedily.

    Args:
        model: the model, in evaluation mode and with its own attention (no packed layout).
        chat_format: how conversations are written.
        conversations: each ends with a user message.
        max_new_tokens: longest answer in tokens; ``longest_answer`` when None.
        cut_mark: is put after an answer that this limit has cut off.

    Returns:
        The answers without reasoning, in the order given.
    """
    if max_new_tokens is None:
        max_new_tokens = longest_answer(chat_format)
    prompts = [chat_format.prompt_ids(messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), _PROMPTS_AT_ONCE):
        chosen = order[start : start + _PROMPTS_AT_ONCE]
        wanted = [prompts[i] for i in chosen]
        for index, ids in zip(chosen, _generate(model, chat_format.stop_ids, wanted, max_new_tokens), strict=True):
            text = str(chat_format.tokenizer.decode(ids, skip_special_tokens=True))
            if len(ids) == max_new_tokens:
                # The limit may fall inside a character of several tokens.
                text = text.rstrip(_HALF_CHARACTER) + cut_mark
            answers[index] = _without_reasoning(text, chat_format.opens_thinking(conversations[index]))
    return answers


def continue_all(
    model: PreTrainedModel,
    document_format: DocumentFormat,
    beginnings: Sequence[Sequence[int]],
    max_new_tokens: int,
    cut_mark: str = "",
) -> list[str]:
    """Go on greedily with the beginnings of documents.

    Args:
        model: the model, in evaluation mode and with its own attention (no packed layout).
        document_format: how documents are written.
        beginnings: token ids; at most a few dozen, they are all computed at once.
        max_new_tokens: longest continuation in tokens.
        cut_mark: is put after a continuation that this limit has cut off.
    """
    if not beginnings:
        return []
    prompts = [list(ids) for ids in beginnings]
    found = _generate(model, frozenset({document_format.end}), prompts, max_new_tokens)
    texts = [str(document_format.tokenizer.decode(ids, skip_special_tokens=True)) for ids in found]
    return [
        text.rstrip(_HALF_CHARACTER) + cut_mark if len(ids) == max_new_tokens else text
        for text, ids in zip(texts, found, strict=True)
    ]


def _generate(
    model: PreTrainedModel, stop_ids: frozenset[int], prompts: list[list[int]], max_new_tokens: int
) -> list[list[int]]:
    longest = max(map(len, prompts))
    stops = sorted(stop_ids)
    ids = torch.full((len(prompts), longest), stops[0], dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with torch.inference_mode(), answering(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
    return [_until_stop(row.tolist(), stop_ids) for row in output[:, longest:]]


def _without_reasoning(text: str, thinking: bool) -> str:
    """Return what follows the think block; nothing when the block was not closed in time."""
    _, close, after = text.rpartition(THINK_CLOSE)
    if not close and (thinking or after.lstrip().startswith(THINK_OPEN)):
        return ""
    return after.strip()


def _until_stop(ids: list[int], stops: frozenset[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]

"""Answers to many prompts, or continuations of many texts, at once: to watch training, for the proof, for labels.

Not for serving: engines do that. The prompts come from the same chat format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Answered:
    """An answer, without its reasoning.

    Attributes:
        text: what was said.
        whole: the model ended it itself; the limit did not.
    """

    text: str
    whole: bool


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
    return [item.text for item in _answers(model, chat_format, conversations, max_new_tokens, cut_mark=cut_mark)]


def sample_all(
    model: PreTrainedModel,
    chat_format: ChatFormat,
    conversations: Sequence[Sequence[Message]],
    samples: int,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[Answered]]:
    """Answer every conversation several times: first greedily, then by chance.

    Args:
        model: the model, in evaluation mode and with its own attention (no packed layout).
        chat_format: how conversations are written.
        conversations: each ends with a user message.
        samples: answers to each, at least 1.
        temperature: logits are divided by it, above 0; no token is left out (no top-k, no top-p).
        seed: the same conversations and the same seed have the same answers; the caller's random state stays.
        max_new_tokens: longest answer in tokens.
        advance: is told how many answers there are so far.

    Returns:
        The answers to each conversation, in the order given.
    """
    found: list[list[Answered]] = [[] for _ in conversations]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(samples):
            done = number * len(conversations)
            drawn = _answers(
                model,
                chat_format,
                conversations,
                max_new_tokens,
                temperature=temperature if number else None,
                advance=lambda more, done=done: advance(done + more),  # type: ignore[misc]
            )
            for answers, answer in zip(found, drawn, strict=True):
                answers.append(answer)
    return found


def _answers(
    model: PreTrainedModel,
    chat_format: ChatFormat,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    *,
    cut_mark: str = "",
    temperature: float | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Answered]:
    prompts = [chat_format.prompt_ids(messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [Answered("", whole=False)] * len(prompts)
    for start in range(0, len(order), _PROMPTS_AT_ONCE):
        chosen = order[start : start + _PROMPTS_AT_ONCE]
        wanted = [prompts[i] for i in chosen]
        written = _generate(model, chat_format.stop_ids, wanted, max_new_tokens, temperature)
        for index, ids in zip(chosen, written, strict=True):
            text = str(chat_format.tokenizer.decode(ids, skip_special_tokens=True))
            whole = len(ids) < max_new_tokens
            if not whole:
                # The limit may fall inside a character of several tokens.
                text = text.rstrip(_HALF_CHARACTER) + cut_mark
            said = _without_reasoning(text, chat_format.opens_thinking(conversations[index]))
            answers[index] = Answered(said, whole)
        advance(start + len(chosen))
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
    model: PreTrainedModel,
    stop_ids: frozenset[int],
    prompts: list[list[int]],
    max_new_tokens: int,
    temperature: float | None = None,
) -> list[list[int]]:
    """Return what the model writes after each prompt: greedily, or drawn from its own distribution at a temperature."""
    drawn = temperature is not None
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
            do_sample=drawn,
            num_beams=1,
            temperature=temperature,
            # None would let the model's own generation_config cut the distribution.
            top_p=1.0 if drawn else None,
            top_k=0 if drawn else None,
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

"""Conversations to examples: token ids with a learn mask, through the chat format that engines use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from danlu.data.conversations import Conversation
from danlu.data.examples import Example
from danlu.data.table import lengths_of, supervised_of
from danlu.errors import DataError
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat

LearnPolicy = Literal["all", "last"]


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of encoded examples, in tokens.

    Attributes:
        examples: number of sequences.
        total: tokens in all.
        supervised: learned tokens in all.
        median: median length.
        p95: length that 95 in 100 examples do not exceed.
        longest: the greatest length.
    """

    examples: int
    total: int
    supervised: int
    median: int
    p95: int
    longest: int


def encode(conversations: Sequence[Conversation], chat_format: ChatFormat, learn: LearnPolicy = "all") -> list[Example]:
    """Return the training sequences of conversations, in order.

    Usually one each; several where the template writes earlier turns differently (see
    ``ChatFormat.training_sequences``, which gives the same for one conversation).

    Args:
        conversations: what was said.
        chat_format: how it is written.
        learn: every answer that the conversation does not exclude, or only the last one of those.

    Raises:
        ModelError: the template refuses a conversation or would leave out a part of it; the message names row and turn.
    """
    chosen = [replace(item, learn=learned_turns(item, learn)) for item in conversations]
    return [
        Example(sequence.ids, sequence.learn, conversation.row, weight=conversation.weight)
        for conversation, sequences in zip(conversations, chat_format.encode_many(chosen), strict=True)
        for sequence in sequences
    ]


def learned_turns(conversation: Conversation, learn: LearnPolicy) -> tuple[bool, ...]:
    """Return for each message of a conversation whether it is learned."""
    if learn == "all":
        return conversation.learn
    last = max((turn for turn, wanted in enumerate(conversation.learn) if wanted), default=-1)
    return tuple(turn == last for turn in range(len(conversation.learn)))


def count_tokens(examples: Sequence[Example]) -> TokenCounts:
    """Return how long examples are; there must be at least one."""
    lengths = np.sort(lengths_of(examples))
    return TokenCounts(
        examples=len(lengths),
        total=int(lengths.sum()),
        supervised=int(supervised_of(examples).sum()),
        median=int(lengths[len(lengths) // 2]),
        p95=int(lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))]),
        longest=int(lengths[-1]),
    )


def require_fitting(examples: Sequence[Example], max_length: int, name: str) -> None:
    """Check that no example is longer than ``max_length`` tokens; nothing is ever cut.

    Raises:
        DataError: some are; the message counts them and names the first rows.
    """
    suspects = (examples[int(at)] for at in np.flatnonzero(lengths_of(examples) > max_length))
    long = [text for example in suspects for text in example.parts if len(text.input_ids) > max_length]
    if long:
        rows = ", ".join(str(example.row) for example in long[:5]) + (" …" if len(long) > 5 else "")
        raise DataError(
            "data.rows_too_long",
            t("data.place_rows", file=name, rows=rows),
            count=len(long),
            most=max_length,
            longest=max(len(example.input_ids) for example in long),
        )

"""Which examples are kept aside to measure on.

A question and its copies always stay on the same side, and the side of a question depends on nothing but its text
and the seed, so that adding rows does not move the others.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from danlu.data.conversations import Conversation


@dataclass(frozen=True)
class Split:
    """Conversations to learn from, and conversations to measure on."""

    train: Sequence[Conversation]
    holdout: Sequence[Conversation]


def split_holdout(conversations: Sequence[Conversation], share: float, seed: int) -> Split:
    """Keep about ``share`` of the distinct questions aside; at least one stays on each side when share > 0.

    Each question draws a number from its text and the seed and is kept aside when that is below ``share``, so the
    count scatters a little around the share (by the square root of it). Answers that a model wrote are never kept
    aside, and are not learned either where their question is.

    Args:
        conversations: all conversations.
        share: wanted share of the distinct questions, 0 to below 1.
        seed: another seed gives another choice.
    """
    aside = choose_aside([normalise(item.question) for item in conversations if not item.pseudo], share, seed)
    return Split(
        train=tuple(item for item in conversations if normalise(item.question) not in aside),
        holdout=tuple(item for item in conversations if normalise(item.question) in aside and not item.pseudo),
    )


def choose_aside(keys: Iterable[str], share: float, seed: int) -> set[str]:
    """Return the distinct keys that are kept aside; at least one stays on each side when share > 0."""
    ranked = sorted(set(keys), key=lambda key: (draw(key, seed), key))
    count = sum(draw(key, seed) < share for key in ranked)
    count = min(max(count, 1), len(ranked) - 1) if share > 0 and len(ranked) > 1 else 0
    return set(ranked[:count])


def below(draws: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.bool_]:
    """Return which items are kept aside by what their keys have drawn: ``choose_aside`` without holding the keys.

    Args:
        draws: what the key of each item has drawn (``draw``), shape [N]; equal keys have equal ones.
        share: wanted share of the distinct keys.
    """
    distinct = np.unique(draws)
    count = int((distinct < share).sum())
    count = min(max(count, 1), len(distinct) - 1) if share > 0 and len(distinct) > 1 else 0
    return draws <= distinct[count - 1] if count else np.zeros(len(draws), dtype=np.bool_)


def normalise(text: str) -> str:
    """Return a text without case, width, white space and punctuation, to find the same question written twice."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNM")


def draw(key: str, seed: int) -> float:
    """Return a number from 0 to below 1 that depends on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:6], "big") / (1 << 48)

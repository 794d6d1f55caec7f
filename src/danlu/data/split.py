"""Which examples are kept aside to measure on.

A question and its copies always stay on the same side, and the side of a question depends on nothing but its text
and the seed, so that adding rows does not move the others.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import regex

from danlu.data.conversations import Conversation

_SIGNS: Final = regex.compile(r"[^\p{L}\p{N}\p{M}]+")


_ASCII_SIGNS: Final = {code: None for code in range(128) if not chr(code).isalnum()}
HoldoutBy = Literal["question", "cluster"]


@dataclass(frozen=True)
class Split:
    """Conversations to learn from, and conversations to measure on."""

    train: Sequence[Conversation]
    holdout: Sequence[Conversation]


def choose_aside(keys: Iterable[str], share: float, seed: int) -> set[str]:
    """Return the distinct keys that are kept aside; at least one stays on each side when share > 0."""
    ranked = sorted(set(keys), key=lambda key: (draw(key, seed), key))
    count = sum(draw(key, seed) < share for key in ranked)
    count = min(max(count, 1), len(ranked) - 1) if share > 0 and len(ranked) > 1 else 0
    return set(ranked[:count])


def aside_by_cluster(
    keys: Sequence[str], labels: npt.NDArray[np.int64], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Return which items are kept aside, whole clusters of like questions at a time; bool, shape [N].

    A cluster of m distinct keys is kept aside when the smallest of what its keys draw is below 1 - (1 - share)^(1/m),
    which happens with the probability ``share`` whatever m is; a question by itself is kept aside exactly when
    ``choose_aside`` keeps it. Rows that are added move others only by joining their cluster. So that few large clusters
    cannot take more than was meant, those with the highest draws stay when the items kept aside would be more than
    twice the share (of small data: three standard deviations more). At least one cluster stays on each side.

    Args:
        keys: normalised questions.
        labels: the cluster of each, shape [N].
        share: wanted share of the items, 0 to below 1.
        seed: another seed gives another choice.
    """
    aside = np.zeros(len(keys), dtype=np.bool_)
    names, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if share <= 0 or len(names) < 2:
        return aside
    lowest = np.ones(len(names))
    distinct: list[set[str]] = [set() for _ in names]
    for key, cluster in zip(keys, members.tolist(), strict=True):
        if key not in distinct[cluster]:
            distinct[cluster].add(key)
            lowest[cluster] = min(lowest[cluster], draw(key, seed))
    counts = np.array([len(found) for found in distinct])
    # What a cluster drew, as if it were a single question: uniform on 0 to 1.
    drawn = 1 - (1 - lowest) ** counts
    order = np.lexsort((names, drawn))
    wanted = share * len(keys)
    most = max(2 * wanted, wanted + 3 * wanted**0.5 + 1)
    chosen = [cluster for cluster in order[:-1].tolist() if drawn[cluster] < share] or [int(order[0])]
    kept: list[int] = []
    total = 0
    for cluster in chosen:
        if kept and total + sizes[cluster] > most:
            continue
        kept.append(cluster)
        total += int(sizes[cluster])
    return np.isin(members, kept)


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
    if text.isascii():  # the same, five times as fast
        return text.lower().translate(_ASCII_SIGNS)
    return str(_SIGNS.sub("", unicodedata.normalize("NFKC", text).casefold()))


def draw(key: str, seed: int) -> float:
    """Return a number from 0 to below 1 that depends on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:6], "big") / (1 << 48)

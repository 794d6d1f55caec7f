"""Which rows are kept aside to measure on, by their questions: whole clusters of like questions, or one by one.

Not for pieces of plain texts (``texts``). How a draw is made is in ``split``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from danlu.data.alike import MOST_COMPARED, clusters
from danlu.data.split import HoldoutBy, aside_by_cluster, choose_aside, normalise

Bools = npt.NDArray[np.bool_]


def questions_aside(
    questions: Sequence[str], share: float, seed: int, by: HoldoutBy, chosen_among: Bools | None = None
) -> Bools:
    """Return which rows ask what is kept aside, bool, shape [N]; at least one question stays on each side.

    Args:
        questions: what each row asks.
        share: wanted share, 0 to below 1.
        seed: another seed gives another choice.
        by: ``cluster`` keeps questions together that ask the same in nearly the same words; ``question`` only those
            that are equal but for case and signs, which is also how more than ``MOST_COMPARED`` rows are chosen from.
        chosen_among: rows that may be measured on, shape [N]; the others go where their question is. None for all.
    """
    keys = [normalise(question) for question in questions]
    among = np.ones(len(keys), dtype=np.bool_) if chosen_among is None else chosen_among
    if by == "question" or len(questions) > MOST_COMPARED:
        chosen = choose_aside((key for key, may in zip(keys, among, strict=True) if may), share, seed)
        return np.array([key in chosen for key in keys], dtype=np.bool_)
    labels = clusters(questions)
    numbers = np.flatnonzero(among)
    aside = aside_by_cluster([keys[number] for number in numbers], labels[numbers], share, seed)
    return np.isin(labels, np.unique(labels[numbers[aside]]))


def asked_in_both(learned: Sequence[str], measured: Sequence[str]) -> int:
    """Return how many of the measured questions are learned too, word by word or nearly."""
    labels = clusters([*learned, *measured])
    return int(np.isin(labels[len(learned) :], labels[: len(learned)]).sum())

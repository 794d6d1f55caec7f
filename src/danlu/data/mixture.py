"""How often each row of each data set is learned in an epoch: data sets mixed by weights, or so many rows of one.

Rows that are measured on are taken out before. The same seed draws the same rows, in every epoch and after a
resumption, whatever other data sets stand beside. Not for how much a row's tokens count (a row's own ``weight``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from danlu.data.sequences import Ints
from danlu.errors import RecipeError

# Enough of a hash to tell data sets apart; a seed of numpy's may be as long as one likes.
_HASH_DIGITS = 16


@dataclass(frozen=True)
class Share:
    """How much of a data set is learned in an epoch.

    Attributes:
        weight: how often each of its rows is learned: 0.5 half of them, 2 each twice.
        samples: so many of its rows are taken, before the weight; None for all.
    """

    weight: float = 1.0
    samples: int | None = None

    @property
    def plain(self) -> bool:
        """Whether each row is learned once."""
        return self == Share()


@dataclass(frozen=True)
class MixPart:
    """What became of the share of a data set.

    Attributes:
        rows: rows that may be learned, without those that are measured on.
        drawn: rows that are learned in an epoch, each as often as it is learned.
    """

    share: Share
    rows: int
    drawn: int


def times_drawn(
    may: npt.NDArray[np.bool_], names: Sequence[str], hashes: Sequence[str], sizes: Sequence[int],
    shares: Sequence[Share], seed: int,
) -> tuple[Ints, tuple[MixPart, ...]]:  # fmt: skip
    """Return how often each row is learned in an epoch.

    Args:
        may: which rows may be learned, bool, shape [N], data set after data set.
        names: what the data sets are called, for messages.
        hashes: hash of the rows of each data set.
        sizes: rows of each data set; their sum is N.
        shares: how much of each is learned.
        seed: draws the rows where a share is no whole number.

    Returns:
        The counts, int64, shape [N], and what became of each share.

    Raises:
        RecipeError: more samples are asked for than there are rows.
    """
    times = np.zeros(len(may), dtype=np.int64)
    parts = []
    start = 0
    for name, sha256, size, share in zip(names, hashes, sizes, shares, strict=True):
        rows = start + np.flatnonzero(may[start : start + size])
        start += size
        if share.samples is not None and share.samples > len(rows):
            raise RecipeError("versions.samples_beyond", name, samples=share.samples, rows=len(rows))
        taken = len(rows) if share.samples is None else share.samples
        # Half a row is rounded up; a data set that is named is not left out altogether.
        drawn = max(int(share.weight * taken + 0.5), 1) if taken else 0
        order = rows if share.plain else np.random.default_rng((seed, int(sha256[:_HASH_DIGITS], 16))).permutation(rows)
        order = order[:taken]
        if taken:
            whole, more = divmod(drawn, taken)
            times[order] = whole
            times[order[:more]] += 1
        parts.append(MixPart(share, len(rows), drawn))
    return times, tuple(parts)

"""How alike several answers to one question are, and which of them is closest to the others. Imports no torch.

That a model is right more often where its sampled answers agree is the finding of Wang et al. 2022, "Self-consistency
improves chain of thought reasoning in language models" (arXiv 2203.11171), who take the answer of the majority. Whole
sentences rarely repeat word by word: here the answer most like the others is taken, as with minimum Bayes risk
(Kumar & Byrne 2004), and being alike is measured as in chrF (Popović 2015), which knows no words and so fits Chinese.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from danlu.data.split import normalise

# As in chrF.
_LONGEST: Final = 6


@dataclass(frozen=True)
class Consensus:
    """What answers to one question have in common.

    Attributes:
        best: index of the answer that is closest to the others; the first of equals.
        agreement: mean similarity over all pairs, 0 to 1; 1 of a single answer.
    """

    best: int
    agreement: float


def consensus(answers: Sequence[str]) -> Consensus:
    """Return what at least one answer have in common; an empty one is the best only where all are."""
    count = len(answers)
    if count == 1:
        return Consensus(0, 1.0)
    alike = [[0.0] * count for _ in answers]
    for one in range(count):
        for other in range(one):
            alike[one][other] = alike[other][one] = similarity(answers[one], answers[other])
    totals = [sum(row) for row in alike]
    best = max(range(count), key=lambda index: (bool(answers[index].strip()), totals[index], -index))
    return Consensus(best, sum(totals) / (count * (count - 1)))


def similarity(one: str, other: str) -> float:
    """Return how alike two texts are, 0 to 1: the F1 of their character n-grams, mean over n = 1 to 6.

    Case, width, white space and punctuation do not count. Orders that neither text is long enough for are left out.
    """
    first, second = normalise(one), normalise(other)
    orders = min(_LONGEST, max(len(first), len(second)))
    if orders == 0:
        return 1.0
    return sum(_overlap(first, second, n) for n in range(1, orders + 1)) / orders


def _overlap(one: str, other: str, n: int) -> float:
    first, second = (Counter(text[at : at + n] for at in range(len(text) - n + 1)) for text in (one, other))
    return 2 * (first & second).total() / (first.total() + second.total())

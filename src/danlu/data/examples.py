"""An example: token ids with a learn mask, as plain numbers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Example:
    """One sequence of token ids and what is learned of it.

    Attributes:
        input_ids: token ids, int, length T.
        learn: for each id whether the model is to produce it, length T; the first is never learned.
        row: index of the row it came from.
        lengths: lengths of the texts that were packed into it, which do not see each other; empty when it is one.
        wanted: whether its answer is one to come to or one to leave; only labelled answers are ever unwanted.
        weight: how much each of its learned tokens counts beside those of other examples, above 0.
        text: it is plain text and no answer; both have a mean of their own where both are learned in one step.
    """

    input_ids: tuple[int, ...]
    learn: tuple[bool, ...]
    row: int
    lengths: tuple[int, ...] = ()
    wanted: bool = True
    weight: float = 1.0
    text: bool = False

    @property
    def supervised(self) -> int:
        """Number of learned tokens."""
        return sum(self.learn[1:])

    def excerpt(self, most: int, learned: int) -> Example:
        """Return a part of it: of a long one its beginning and what surrounds its first learned token.

        For comparing two ways to compute; what it says no longer hangs together.

        Args:
            most: tokens that are kept at most.
            learned: how many of them, the last ones, are still learned.
        """
        ids, learn = self.input_ids, self.learn
        if len(ids) > most:
            head = most // 4
            first = next((i for i, on in enumerate(learn) if on and i), 0)
            start = max(head, min(first - head, len(ids) - (most - head)))
            chosen = [*range(head), *range(start, start + most - head)]
            ids, learn = tuple(ids[i] for i in chosen), tuple(learn[i] for i in chosen)
        kept = [i for i, on in enumerate(learn) if on and i][-learned:]
        learn = tuple(i in kept for i in range(len(ids)))
        return Example(ids, learn, self.row, weight=self.weight, text=self.text)

    @property
    def parts(self) -> tuple[Example, ...]:
        """The texts that were packed into it, each as an example of its own."""
        if not self.lengths:
            return (self,)
        edges = pairwise(accumulate(self.lengths, initial=0))
        return tuple(
            Example(self.input_ids[at:end], self.learn[at:end], self.row, weight=self.weight, text=self.text)
            for at, end in edges
        )


def unpacked(examples: Iterable[Example]) -> list[Example]:
    """Return the texts of all examples one by one: what is packed in one example is computed apart."""
    return [part for example in examples for part in example.parts]

"""An example: token ids with a learn mask, as plain numbers. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One sequence of token ids and what is learned of it.

    Attributes:
        input_ids: token ids, int, length T.
        learn: for each id whether the model is to produce it, length T; the first is never learned.
        row: index of the row it came from.
    """

    input_ids: tuple[int, ...]
    learn: tuple[bool, ...]
    row: int

    @property
    def supervised(self) -> int:
        """Number of learned tokens."""
        return sum(self.learn[1:])

    @property
    def shareable(self) -> int:
        """How many leading tokens may be shared: the token before the first learned one must be the example's own."""
        first = next((i for i, learned in enumerate(self.learn) if learned and i), len(self.learn))
        return max(first - 1, 0)

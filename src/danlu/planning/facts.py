"""What the rules look at beside the model's architecture: the data, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.data.encode import TokenCounts


@dataclass(frozen=True)
class DataFacts:
    """The examples in numbers.

    Attributes:
        rows: rows in all.
        train: examples that are learned.
        holdout: examples that are measured on.
        tokens: lengths of the learned examples.
    """

    rows: int
    train: int
    holdout: int
    tokens: TokenCounts

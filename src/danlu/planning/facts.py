"""What the rules look at beside the model's architecture: the data, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.data.encode import TokenCounts


@dataclass(frozen=True)
class TextFacts:
    """How plain texts were laid out.

    Attributes:
        cut: documents longer than a piece.
        pieces: pieces in all, those that are measured on included.
    """

    cut: int
    pieces: int


@dataclass(frozen=True)
class DataFacts:
    """The examples in numbers.

    Attributes:
        rows: rows in all; of texts, the documents.
        train: examples that are learned; of texts, packed sequences.
        holdout: examples that are measured on, likewise.
        tokens: lengths of the learned examples; of texts, of the pieces in them.
        texts: what there is to say of texts; None for conversations.
    """

    rows: int
    train: int
    holdout: int
    tokens: TokenCounts
    texts: TextFacts | None = None

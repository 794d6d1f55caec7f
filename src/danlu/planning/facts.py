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
class JudgedFacts:
    """Judged answers.

    Attributes:
        good: answers that are wanted.
        bad: answers that are not.
        longest: tokens of the longest example, of pairs both answers together.
    """

    good: int
    bad: int
    longest: int


@dataclass(frozen=True)
class DataFacts:
    """The examples in numbers.

    Attributes:
        rows: rows in all; of texts, the documents.
        train: examples that are learned; of texts, packed sequences.
        holdout: examples that are measured on, likewise.
        tokens: lengths of the learned examples; of texts, of the pieces in them.
        texts: what there is to say of texts; None for anything else.
        judged: what there is to say of judged answers; None for anything else.
    """

    rows: int
    train: int
    holdout: int
    tokens: TokenCounts
    texts: TextFacts | None = None
    judged: JudgedFacts | None = None

"""Documents to examples: token ids, cut into pieces that a model can take, packed into sequences of full length.

Every token of every document, and the one that ends it, is learned exactly once. Nothing is thrown away, and no
document sees another one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from danlu.data.documents import Document
from danlu.data.examples import Example
from danlu.data.sequences import Selected
from danlu.data.split import below, draw
from danlu.data.table import Packed, lengths_of
from danlu.models.document_format import DocumentFormat


@dataclass(frozen=True)
class PieceSplit:
    """Pieces to learn from, and pieces to measure on."""

    train: Sequence[Example]
    holdout: Sequence[Example]


def cut(documents: Sequence[Document], document_format: DocumentFormat, max_length: int) -> list[Example]:
    """Return documents as pieces of at most ``max_length`` tokens, in order.

    A document that fits is one piece. A longer one is cut; each further piece begins with the last token of the one
    before, which is not learned again but predicts the first new one (the disjoint windows in which evaluation
    programs measure the perplexity of long texts).

    Args:
        documents: the documents.
        document_format: what stands before a document and what ends it.
        max_length: most tokens of a piece, what stands before included.

    Returns:
        Examples in which every id is learned except what stands before; ``row`` is the number of the
        document in ``documents``, from 1.
    """
    pieces: list[Example] = []
    encoded = document_format.ids([document.text for document in documents])
    for number, ids in enumerate(encoded, start=1):
        before, at = document_format.start, 0
        while at < len(ids):
            own = tuple(ids[at : at + max_length - len(before)])
            learn = (False,) * len(before) + (True,) * len(own)
            pieces.append(Example((*before, *own), learn, number))
            before, at = own[-1:], at + len(own)
    return pieces


def split_pieces(pieces: Sequence[Example], share: float, seed: int) -> PieceSplit:
    """Keep about ``share`` of the pieces aside; copies of a piece stay on the same side.

    Pieces and not documents, so that one long file can be learned and measured on, too.

    Args:
        pieces: all pieces.
        share: wanted share, 0 to below 1.
        seed: another seed gives another choice.
    """
    draws = np.array([draw(" ".join(map(str, _own(piece))), seed) for piece in pieces])
    aside = below(draws, share)
    return PieceSplit(Selected(pieces, np.flatnonzero(~aside)), Selected(pieces, np.flatnonzero(aside)))


def fill(pieces: Sequence[Example], max_length: int, *, text: bool = False) -> Packed:
    """Pack pieces into examples of at most ``max_length`` tokens, without cutting any.

    Best fit, longest first: each piece goes where it leaves the least room (Ding et al. 2024, "Fewer truncations
    improve language modeling", arXiv 2404.10830). Within an example and among them, pieces keep their order.

    Args:
        pieces: the pieces.
        max_length: most tokens of an example.
        text: mark the examples as plain texts beside answers.
    """
    lengths = lengths_of(pieces).tolist()
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens free, number of the bin), sorted
    for index in sorted(range(len(pieces)), key=lambda i: -lengths[i]):
        length = lengths[index]
        at = bisect_left(rooms, (length, 0))
        if at < len(rooms):
            free, number = rooms.pop(at)
            bins[number].append(index)
        else:
            free, number = max_length, len(bins)
            bins.append([index])
        if free > length:
            insort(rooms, (free - length, number))
    return Packed(pieces, sorted(sorted(members) for members in bins), text=text)


def _own(piece: Example) -> tuple[int, ...]:
    """Return the learned ids of a piece."""
    return tuple(token for token, learned in zip(piece.input_ids, piece.learn, strict=True) if learned)

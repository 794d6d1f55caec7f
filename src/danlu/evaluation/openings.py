"""Beginnings of texts that a model is to go on with: what probe questions are for conversations, without a verdict."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from danlu.data.examples import Example
from danlu.models.document_format import DocumentFormat

# Enough to show what a text is about; the other half of a shorter one is left to go on with.
_OPENING_TOKENS: Final = 32
_HALF_CHARACTER: Final = "\ufffd"


@dataclass(frozen=True)
class Opening:
    """The beginning of a text.

    Attributes:
        ids: what the model is given, with what stands before a document.
        text: the same for people.
    """

    ids: tuple[int, ...]
    text: str


def openings_from(pieces: Sequence[Example], document_format: DocumentFormat, count: int, seed: int) -> list[Opening]:
    """Make openings of at most ``count`` pieces, of beginnings of documents where there are enough.

    Args:
        pieces: single texts, not packed.
        document_format: how documents are written.
        count: how many openings.
        seed: another seed gives another choice.
    """
    start = document_format.start
    begins = [piece.input_ids[: len(start)] == start for piece in pieces]
    order = random.Random(seed).sample(range(len(pieces)), len(pieces))  # noqa: S311  a sample, not a secret
    order.sort(key=lambda index: not begins[index])
    made = []
    for index in sorted(order[:count]):
        before = len(start) if begins[index] else 1
        ids = pieces[index].input_ids
        shown = ids[: before + min(_OPENING_TOKENS, (len(ids) - before + 1) // 2)]
        text = str(document_format.tokenizer.decode(shown[before:], skip_special_tokens=True)).strip(_HALF_CHARACTER)
        made.append(Opening(shown, text if begins[index] else f"… {text.lstrip()}"))
    return made

"""Families of rows: which one a file is in, found from its rows.

Adding a family means adding a class with ``matches`` and ``convert`` (``base.RowFormat``) to ``FORMATS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from danlu.data.formats.alpaca import ANSWERS, QUESTIONS, AlpacaFormat, ColumnsFormat, fold
from danlu.data.formats.base import RowFormat
from danlu.data.formats.judged import LabelFormat, PairFormat
from danlu.data.formats.messages import MessagesFormat
from danlu.data.formats.plain import QuestionFormat, TextFormat, answers_nothing
from danlu.data.rows import Row, place
from danlu.errors import DataError

AnyFormat = RowFormat[Any]
# In the order in which they are tried: a row with chosen and messages is a pair, one with instruction and text Alpaca.
FORMATS: Final[tuple[AnyFormat, ...]] = (
    PairFormat(), LabelFormat(), MessagesFormat(), AlpacaFormat(), ColumnsFormat(), TextFormat(), QuestionFormat(),
)  # fmt: skip
_LOOKED_AT: Final = 50


def format_named(name: str) -> AnyFormat:
    """Return a family by its name.

    Raises:
        DataError: there is none of this name.
    """
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise DataError("formats.unknown_name", name=name, known=", ".join(sorted(item.name for item in FORMATS)))


def recognise(file: Path | str, rows: Iterable[Row]) -> AnyFormat:
    """Return the family that most of the first rows are in; of as many the one that comes first in the file.

    Args:
        file: the file, for the message.
        rows: its rows, at least one; they may be gone through twice, because only all of them tell questions from
            answers that are missing.

    Raises:
        DataError: no family fits; the message names the fields that were found, and what they may mean.
    """
    first = list(islice(rows, _LOOKED_AT))
    found = Counter(family.name for row in first if (family := family_of(row)) is not None)
    if not found:
        fields = ", ".join(list(first[0].values)[:8]) or "–"
        raise DataError("data.unknown_format", place(file, first[0]), found=fields, **_guess(first[0]))
    chosen = format_named(found.most_common(1)[0][0])
    if chosen.name in {AlpacaFormat.name, QuestionFormat.name}:
        return format_named(QuestionFormat.name) if answers_nothing(rows) else _answering(chosen, first)
    return chosen


def family_of(row: Row) -> AnyFormat | None:
    """Return the family that a row by itself looks like."""
    return next((candidate for candidate in FORMATS if candidate.matches(row)), None)


def require_family(file: Path | str, row: Row, chosen: AnyFormat) -> None:
    """Check that a row does not belong to another family than the file.

    Raises:
        DataError: it does.
    """
    if chosen.matches(row):
        return
    own = family_of(row)
    if own is not None and own.kind != chosen.kind:
        raise DataError("formats.mixed", place(file, row), family=own.name, chosen=chosen.name)


def _answering(chosen: AnyFormat, rows: Sequence[Row]) -> AnyFormat:
    """Return a family that learns answers: questions of which some are answered are no questions."""
    if chosen.name == AlpacaFormat.name:
        return chosen
    found = next((family for row in rows if (family := family_of(row)) and family.kind == "conversations"), None)
    return found or format_named(AlpacaFormat.name)


def _guess(row: Row) -> dict[str, str]:
    """Return which columns may be meant as question and answer: the first two with texts, unless names say more."""
    texts = [name for name, value in row.values.items() if isinstance(value, str)]
    asks = next((name for name in texts if any(part in fold(name) for part in QUESTIONS if len(part) > 2)), None)
    answers = next((name for name in texts if any(part in fold(name) for part in ANSWERS if len(part) > 2)), None)
    left = [name for name in texts if name not in {asks, answers}]
    asks = asks or (left.pop(0) if left else "…")
    answers = answers or (left.pop(0) if left else "…")
    return {"question": asks, "answer": answers}

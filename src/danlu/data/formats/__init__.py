"""Families of rows: which one a file is in, found from its rows.

Adding a family means adding a class with ``matches`` and ``convert`` (``base.RowFormat``) to ``FORMATS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from danlu.data.formats.alpaca import AlpacaFormat
from danlu.data.formats.base import RowFormat
from danlu.data.formats.columns import ColumnsFormat
from danlu.data.formats.judged import LabelFormat, PairFormat, label_field
from danlu.data.formats.messages import MessagesFormat
from danlu.data.formats.names import answerish, fold, like, like_question
from danlu.data.formats.plain import QuestionFormat, TextFormat, answers_nothing
from danlu.data.rows import Row, place
from danlu.errors import DataError

AnyFormat = RowFormat[Any]
# In the order in which they are tried: a row with chosen and messages is a pair, one with instruction and text Alpaca.
FORMATS: Final[tuple[AnyFormat, ...]] = (
    PairFormat(), LabelFormat(), MessagesFormat(), AlpacaFormat(), ColumnsFormat(), TextFormat(), QuestionFormat(),
)  # fmt: skip
# What others call these families.
ALIASES: Final = {"sharegpt": "messages", "openai": "messages", "chatml": "messages", "dpo": "pairs", "kto": "labels"}
_LOOKED_AT: Final = 50
_TABLES: Final = frozenset({".csv", ".tsv", ".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"})
_MEDIA: Final = ("images", "videos", "audios")


def format_named(name: str) -> AnyFormat:
    """Return a family by its name, or by what others call it.

    Raises:
        DataError: there is none of this name.
    """
    for candidate in FORMATS:
        if candidate.name == ALIASES.get(name, name):
            return candidate
    raise DataError(
        "formats.unknown_name", name=name, known=", ".join(["auto", *(item.name for item in FORMATS), *ALIASES])
    )


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
        raise _unknown(file, first[0])
    chosen = format_named(found.most_common(1)[0][0])
    if chosen.name in {AlpacaFormat.name, QuestionFormat.name}:
        return format_named(QuestionFormat.name) if answers_nothing(rows) else _answering(chosen, first)
    return chosen


def family_of(row: Row) -> AnyFormat | None:
    """Return the family that a row by itself looks like."""
    return next((candidate for candidate in FORMATS if candidate.matches(row)), None)


def require_family(file: Path | str, row: Row, chosen: AnyFormat, *, named: bool = False) -> None:
    """Check that a row does not belong to another family than the file, nor to pictures and sounds.

    Args:
        file: the file, for the message.
        row: the row.
        chosen: the family that the file is read as.
        named: somebody has said so; a row is then only looked at as what it is said to be.

    Raises:
        DataError: it does.
    """
    media = next((name for name in _MEDIA if row.values.get(name)), None)
    if media is not None and chosen.kind != "texts":
        raise DataError("formats.media", place(file, row, media), field=media)
    if named or chosen.matches(row) or (label_field(row) and chosen.kind == "labels"):
        return
    own = family_of(row)
    # A question without its answer among answers is a mistake of its own, which the family names better.
    asks = {"questions", "conversations"}
    if own is not None and own.kind != chosen.kind and {own.kind, chosen.kind} == asks and not answerish(row):
        return
    if own is not None and own.name != chosen.name:
        raise DataError("formats.mixed", place(file, row), family=own.name, chosen=chosen.name)


def unread(row: Row, family: AnyFormat) -> set[str]:
    """Return the fields of a row that a family does not read."""
    return {
        name for name in row.values if name not in family.fields and not (family.folded and fold(name) in family.fields)
    }


def _answering(chosen: AnyFormat, rows: Sequence[Row]) -> AnyFormat:
    """Return a family that learns answers: questions of which some are answered are no questions."""
    if chosen.name == AlpacaFormat.name:
        return chosen
    found = next((family for row in rows if (family := family_of(row)) and family.kind == "conversations"), None)
    return found or format_named(AlpacaFormat.name)


def _unknown(file: Path | str, row: Row) -> DataError:
    """Return the error about rows of no family: what was found, and which mapping may be meant."""
    fields = ", ".join(list(row.values)[:8]) or "–"
    guess = _guess(row)
    if len(row.values) == 2 and _headerless(file, row):
        return DataError("formats.no_header", place(file, row), found=fields)
    return DataError("data.unknown_format", place(file, row), found=fields, **guess)


def _headerless(file: Path | str, row: Row) -> bool:
    """Say whether the names of a table's columns may be its first row: none of them says anything."""
    known = any(answerish(row) or like(name) or like_question(name) for name in row.values)
    return isinstance(file, Path) and file.suffix.lower() in _TABLES and not known


def _guess(row: Row) -> dict[str, str]:
    """Return which columns may be meant as question and answer: the first two with texts, unless names say more."""
    texts = [name for name, value in row.values.items() if isinstance(value, str)]
    answers = next((name for name in texts if like(name)), None)
    asks = next((name for name in texts if name != answers and like_question(name)), None)
    left = [name for name in texts if name not in {asks, answers}]
    asks = asks or (left.pop(0) if left else "…")
    answers = answers or (left.pop(0) if left else "…")
    return {"question": asks, "answer": answers}

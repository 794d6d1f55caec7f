"""The check of a data file: every row is looked at, every problem is listed with its place and remedy.

Structure and exact duplicates for now; content, privacy and leaks come with the data issue and slot in as more
functions that yield problems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from danlu.data.conversations import Conversation, recognise
from danlu.data.encode import count_tokens, encode
from danlu.data.rows import read_rows
from danlu.data.split import normalise
from danlu.errors import DataError
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat

Severity = Literal["error", "warning", "info"]
# Below this many rows a model learns these sentences, not the subject (research: 91 to 108 rows in the identity sets
# of two widely used tools; at least 100 rows recommended by Unsloth's data guide).
FEW_ROWS = 90
_NAMED = 8


class DataProblem(BaseModel):
    """One problem of one row, or of the file (row 0)."""

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    row: int
    line: int
    field: str | None
    message: str
    fix: str


class TokenReport(BaseModel):
    """Lengths in tokens under one model's chat format."""

    model_config = ConfigDict(frozen=True)

    total: int
    supervised: int
    p50: int
    p95: int
    max: int


class DataReport(BaseModel):
    """What ``danlu data check`` says; ``leaks`` is None because leaks are not looked for yet."""

    model_config = ConfigDict(frozen=True)

    file: str
    row_format: str
    rows: int
    usable: int
    problems: tuple[DataProblem, ...]
    tokens: TokenReport | None
    duplicates: int
    leaks: int | None


def check_file(path: Path, chat_format: ChatFormat | None = None) -> DataReport:
    """Check every row of a file.

    Args:
        path: the file.
        chat_format: counts tokens when given.

    Raises:
        DataError: the file as a whole cannot be read as rows.
    """
    rows = read_rows(path)
    row_format = recognise(path, rows)
    conversations: list[Conversation] = []
    problems: list[DataProblem] = []
    for row in rows:
        try:
            conversations.append(row_format.convert(path, row))
        except DataError as error:
            field = error.params.get("field")
            problems.append(
                _problem(
                    error.key, "error", row.index, row.line, str(field) if field else None, error.what(), error.fix()
                )
            )
    copies = list(_duplicates(conversations))
    problems += copies
    problems += _contradictions(conversations)
    ignored = sorted({name for row in rows for name in row.values} - row_format.fields)
    if ignored:
        what = t("data.unknown_fields.what", fields=", ".join(ignored[:_NAMED]) + (" …" if ignored[_NAMED:] else ""))
        fix = t("data.unknown_fields.fix", known=", ".join(sorted(row_format.fields)))
        problems.append(_problem("data.unknown_fields", "info", 0, 0, None, what, fix))
    if len(conversations) < FEW_ROWS:
        what = t("data.few_rows.what", rows=len(conversations))
        problems.append(_problem("data.few_rows", "warning", 0, 0, None, what, t("data.few_rows.fix", enough=FEW_ROWS)))
    tokens = None
    if chat_format is not None and conversations:
        counts = count_tokens(encode(conversations, chat_format))
        tokens = TokenReport(
            total=counts.total, supervised=counts.supervised, p50=counts.median, p95=counts.p95, max=counts.longest
        )
    return DataReport(
        file=str(path),
        row_format=row_format.name,
        rows=len(rows),
        usable=len(conversations),
        problems=tuple(problems),
        tokens=tokens,
        duplicates=len(copies),
        leaks=None,
    )


def _duplicates(conversations: list[Conversation]) -> Iterator[DataProblem]:
    first: dict[tuple[str, ...], Conversation] = {}
    for item in conversations:
        key = tuple(f"{message.role}:{message.content}" for message in item.messages)
        earlier = first.setdefault(key, item)
        if earlier is not item:
            what = t("data.duplicate.what", other=earlier.row)
            yield _problem("data.duplicate", "warning", item.row, item.line, None, what, t("data.duplicate.fix"))


def _contradictions(conversations: list[Conversation]) -> Iterator[DataProblem]:
    by_question: defaultdict[tuple[str, ...], list[Conversation]] = defaultdict(list)
    for item in conversations:
        by_question[tuple(normalise(message.content) for message in item.messages[:-1])].append(item)
    for items in by_question.values():
        for item in items[1:]:
            if normalise(item.answer) != normalise(items[0].answer):
                what = t("data.contradiction.what", other=items[0].row)
                fix = t("data.contradiction.fix")
                yield _problem("data.contradiction", "warning", item.row, item.line, None, what, fix)


def _problem(
    code: str, severity: Severity, row: int, line: int, field: str | None, message: str, fix: str
) -> DataProblem:
    return DataProblem(code=code, severity=severity, row=row, line=line, field=field, message=message, fix=fix)

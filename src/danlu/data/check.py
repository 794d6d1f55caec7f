"""The check of a data file: every row is looked at, every problem is listed with its place and remedy.

Structure and exact duplicates for now; content, privacy and leaks come with the data issue and slot in as more
functions that yield problems.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from danlu.data.conversations import Conversation
from danlu.data.datasets import Source
from danlu.data.documents import Document
from danlu.data.encode import TokenCounts, count_tokens, encode
from danlu.data.examples import Example
from danlu.data.formats import AnyFormat, require_family
from danlu.data.formats.base import Kind
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.reading import Placeholders, Reading
from danlu.data.rows import Row
from danlu.data.split import normalise
from danlu.data.texts import cut
from danlu.errors import DataError
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.models.messages import Message

Severity = Literal["error", "warning", "info"]
# Below this many rows a model learns these sentences, not the subject (research: 91 to 108 rows in the identity sets
# of two widely used tools; at least 100 rows recommended by Unsloth's data guide).
FEW_ROWS = 90
# About 100,000 tokens of English; see ``planning.text_rules.FEW_TOKENS``.
FEW_CHARACTERS = 400_000
_NAMED = 8
# Own rule, see ``planning.preference_rules.FEW``.
FEW_JUDGED = 300
# Beyond it, in how many pairs of ten the chosen answer is the longer one, length is what is learned first.
LONGER_SHARE = 0.8
_Item = TypeVar("_Item", Conversation, Document, Preference, Question)
# What ``danlu pseudo-label`` writes for people to judge by; it is not read.
_SCORES = frozenset({"samples", "agreement", "confidence", "doubt"})


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
    """What ``danlu data check`` says; ``leaks`` is None because leaks are not looked for yet.

    ``characters`` counts plain texts and is None for conversations.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    row_format: str
    kind: Kind
    rows: int
    usable: int
    problems: tuple[DataProblem, ...]
    tokens: TokenReport | None
    duplicates: int
    leaks: int | None
    characters: int | None = None


def check_file(path: Path, chat_format: ChatFormat | None = None) -> DataReport:
    """Check every row of a file; see ``check_source``."""
    return check_source(Source(path, Reading(), path.stem), chat_format)


def check_source(source: Source, chat_format: ChatFormat | None = None) -> DataReport:
    """Check every row.

    Args:
        source: the rows.
        chat_format: counts tokens when given.

    Raises:
        DataError: the file as a whole cannot be read as rows.
    """
    path, row_format = source.path, source.family()
    rows = list(source)
    report = _CHECKS[row_format.kind](path, rows, row_format, chat_format)
    left = list(_placeholders(rows, source.reading))
    return report.model_copy(update={"problems": (*report.problems, *left)})


def _placeholders(rows: list[Row], reading: Reading) -> Iterator[DataProblem]:
    found = Placeholders(kept=reading.fill)
    for row in rows:
        found.look(row)
    for name, count in found.rows.items():
        first = found.first[name]
        what = t("formats.placeholder.what", name="{{" + name + "}}", rows=count)
        fix = t("formats.placeholder.fix", name=name)
        yield _problem("formats.placeholder", "error", first.index, first.line, None, what, fix)


def _check_conversations(
    path: Path, rows: list[Row], row_format: AnyFormat, chat_format: ChatFormat | None
) -> DataReport:
    usable, problems = _convert(path, rows, row_format)
    conversations = [item for item in usable if item.accepted]
    pseudo = sum(item.pseudo for item in usable)
    copies = list(_duplicates(conversations, _said))
    problems += copies
    problems += _contradictions(conversations)
    problems += _ignored(rows, row_format.fields | (_SCORES if pseudo else frozenset()))
    if pseudo:
        what = t("data.pseudo_rows.what", rows=pseudo, left_out=len(usable) - len(conversations))
        problems.append(_problem("data.pseudo_rows", "info", 0, 0, None, what, t("data.pseudo_rows.fix")))
    if len(conversations) < FEW_ROWS:
        what = t("data.few_rows.what", rows=len(conversations))
        problems.append(_problem("data.few_rows", "warning", 0, 0, None, what, t("data.few_rows.fix", enough=FEW_ROWS)))
    tokens = None
    if chat_format is not None and conversations:
        tokens = _lengths(count_tokens(encode(conversations, chat_format)))
    return _report(path, rows, row_format.name, "conversations", len(usable), problems, copies, tokens)


def _check_texts(path: Path, rows: list[Row], text_format: AnyFormat, chat_format: ChatFormat | None) -> DataReport:
    documents, problems = _convert(path, rows, text_format)
    copies = list(_duplicates(documents, lambda document: document.text))
    problems += copies
    problems += _ignored(rows, text_format.fields)
    characters = sum(len(document.text) for document in documents)
    if characters < FEW_CHARACTERS:
        what = t("data.few_characters.what", characters=characters)
        fix = t("data.few_characters.fix", enough=FEW_CHARACTERS)
        problems.append(_problem("data.few_characters", "warning", 0, 0, None, what, fix))
    tokens = None
    if chat_format is not None and documents:
        whole = cut(documents, DocumentFormat.of(chat_format.tokenizer), sys.maxsize)
        tokens = _lengths(count_tokens(whole))
    report = _report(path, rows, text_format.name, "texts", len(documents), problems, copies, tokens)
    return report.model_copy(update={"characters": characters})


def _check_judged(path: Path, rows: list[Row], judged: AnyFormat, chat_format: ChatFormat | None) -> DataReport:
    items, problems = _convert(path, rows, judged)
    copies = list(_duplicates(items, _judged_so))
    problems += copies
    problems += _against_each_other(items)
    problems += _ignored(rows, judged.fields)
    problems += list(_one_sided(items))
    if len(items) < FEW_JUDGED:
        what = t("data.few_judged.what", rows=len(items))
        fix = t("data.few_judged.fix", enough=FEW_JUDGED)
        problems.append(_problem("data.few_judged", "warning", 0, 0, None, what, fix))
    tokens = None
    if chat_format is not None and items:
        answers = encode([answer for item in items for answer in item.answers], chat_format)
        tokens = _lengths(count_tokens(answers))
    return _report(path, rows, judged.name, judged.kind, len(items), problems, copies, tokens)


def _check_questions(path: Path, rows: list[Row], asked: AnyFormat, chat_format: ChatFormat | None) -> DataReport:
    questions, problems = _convert(path, rows, asked)
    copies = list(_duplicates(questions, lambda question: _turns(question.messages)))
    problems += copies
    problems += _ignored(rows, asked.fields)
    tokens = None
    if chat_format is not None and questions:
        prompts = [tuple(chat_format.prompt_ids(question.messages)) for question in questions]
        tokens = _lengths(count_tokens([Example(ids, (False,) * len(ids), 0) for ids in prompts]))
    return _report(path, rows, asked.name, "questions", len(questions), problems, copies, tokens)


def _report(
    path: Path,
    rows: list[Row],
    row_format: str,
    kind: Kind,
    usable: int,
    problems: list[DataProblem],
    copies: list[DataProblem],
    tokens: TokenReport | None,
) -> DataReport:
    return DataReport(
        file=str(path),
        row_format=row_format,
        kind=kind,
        rows=len(rows),
        usable=usable,
        problems=tuple(problems),
        tokens=tokens,
        duplicates=len(copies),
        leaks=None,
    )


def _judged_so(item: Preference) -> str:
    sides = (("good", item.chosen), ("bad", item.rejected))
    return "\1".join(f"{name}:{_said(side)}" for name, side in sides if side is not None)


def _against_each_other(items: list[Preference]) -> Iterator[DataProblem]:
    """Find answers that one row praises and another one blames."""
    praised: dict[str, Preference] = {}
    for item in items:
        if item.chosen is not None:
            praised.setdefault(_said(item.chosen), item)
    for item in items:
        other = None if item.rejected is None else praised.get(_said(item.rejected))
        if other is not None:
            what, fix = t("data.judged_both.what", other=other.row), t("data.judged_both.fix")
            yield _problem("data.judged_both", "warning", item.row, item.line, None, what, fix)


def _one_sided(items: list[Preference]) -> Iterator[DataProblem]:
    """Say when all labels are alike, or when the chosen answers are nearly all the longer ones."""
    pairs = [(item.chosen.answer, item.rejected.answer) for item in items if item.chosen and item.rejected]
    if pairs:
        longer = sum(len(chosen) > len(rejected) for chosen, rejected in pairs)
        if len(pairs) >= 10 and longer > LONGER_SHARE * len(pairs):
            what = t("data.chosen_longer.what", longer=longer, pairs=len(pairs))
            yield _problem("data.chosen_longer", "info", 0, 0, None, what, t("data.chosen_longer.fix"))
        return
    good = sum(item.chosen is not None for item in items)
    if items and good in {0, len(items)}:
        what, fix = t("data.labels_alike.what", rows=len(items)), t("data.labels_alike.fix")
        yield _problem("data.labels_alike", "warning", 0, 0, None, what, fix)


def _convert(path: Path, rows: list[Row], row_format: AnyFormat) -> tuple[list[Any], list[DataProblem]]:
    """Convert what can be converted; each row that cannot be is a problem."""
    items: list[Any] = []
    problems: list[DataProblem] = []
    for row in rows:
        try:
            require_family(path, row, row_format)
            items.append(row_format.convert(path, row))
        except DataError as error:
            field = error.params.get("field")
            problems.append(
                _problem(
                    error.key, "error", row.index, row.line, str(field) if field else None, error.what(), error.fix()
                )
            )
    return items, problems


def _ignored(rows: list[Row], read: frozenset[str]) -> Iterator[DataProblem]:
    ignored = sorted({name for row in rows for name in row.values} - read)
    if ignored:
        what = t("data.unknown_fields.what", fields=", ".join(ignored[:_NAMED]) + (" …" if ignored[_NAMED:] else ""))
        fix = t("data.unknown_fields.fix", known=", ".join(sorted(read)))
        yield _problem("data.unknown_fields", "info", 0, 0, None, what, fix)


def _lengths(counts: TokenCounts) -> TokenReport:
    return TokenReport(
        total=counts.total, supervised=counts.supervised, p50=counts.median, p95=counts.p95, max=counts.longest
    )


def _said(conversation: Conversation) -> str:
    return _turns(conversation.messages)


def _turns(messages: Sequence[Message]) -> str:
    return "\0".join(
        f"{message.role}:{message.reasoning}:{message.content}:{message.tool_calls}" for message in messages
    )


def _duplicates(items: list[_Item], content: Callable[[_Item], str]) -> Iterator[DataProblem]:
    first: dict[str, _Item] = {}
    for item in items:
        earlier = first.setdefault(content(item), item)
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


_CHECKS: Final[dict[Kind, Callable[[Path, list[Row], AnyFormat, ChatFormat | None], DataReport]]] = {
    "conversations": _check_conversations,
    "texts": _check_texts,
    "preferences": _check_judged,
    "labels": _check_judged,
    "questions": _check_questions,
}

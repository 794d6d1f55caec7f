"""The check of data: every row is looked at once, every problem is listed with its place and remedy, and counted.

Rows come one by one and are not kept, so that files larger than memory can be checked. What is looked for is in
``checks``; what cannot be read at all is said by ``formats`` and ``rows``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from danlu.data.alike import Known
from danlu.data.checks.content import broken_in, wrong_with_answer
from danlu.data.checks.findings import DataProblem, DataReport, FileRead, Findings, Severity, TokenReport
from danlu.data.checks.privacy import private_in
from danlu.data.checks.whole import FEW_ROWS, Gathered, look_at_all, turns_text
from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.encode import encode
from danlu.data.examples import Example
from danlu.data.formats import AnyFormat, require_family, unread
from danlu.data.formats.turns import uncalled
from danlu.data.making.review import MARKS
from danlu.data.placeholders import Placeholders
from danlu.data.preferences import Preference
from danlu.data.questions import Question
from danlu.data.reading import Reading
from danlu.data.row_source import Source
from danlu.data.rows import Row
from danlu.data.sources.facts import shown_kind
from danlu.data.texts import cut
from danlu.errors import DanluError
from danlu.i18n import t
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat

__all__ = ["DataProblem", "DataReport", "check_file", "check_source"]

# About 100,000 tokens of English; see ``planning.text_rules.FEW_TOKENS``.
FEW_CHARACTERS: Final = 400_000
# Own rule, see ``planning.preference_rules.FEW``.
FEW_JUDGED: Final = 300
# Beyond it, in how many pairs of ten the chosen answer is the longer one, length is what is learned first.
LONGER_SHARE: Final = 0.8
# Where less is learned of a row, most of the work goes into reading its prompt.
_FEW_LEARNED: Final = 0.05
_NAMED: Final = 8
_BLOCK: Final = 500
# What ``danlu pseudo-label`` writes for people to judge by; it is not read.
_SCORES: Final = frozenset({"samples", "agreement", "confidence", "doubt"}) | MARKS
# What ``danlu data repair`` can mend, by the kind of problem.
REPAIRS: Final = {
    "data.duplicate": "copies", "checks.mojibake": "mojibake", "checks.invisible": "invisible", "checks.html": "html",
    "checks.email": "private", "checks.phone": "private", "checks.id_number": "private", "checks.card": "private",
    "checks.iban": "private",
    "checks.secret": "private", "checks.password": "private",
}  # fmt: skip
Progress = Callable[[int, int, int], None]


@dataclass
class _Pass:
    """One way through the rows.

    Attributes:
        findings: what was found.
        gathered: what is kept of conversations.
        chat_format: counts tokens; None counts none.
        most: most tokens that the model takes; None where it is not known.
    """

    findings: Findings
    chat_format: ChatFormat | None
    most: int | None
    gathered: Gathered = field(default_factory=Gathered)
    rows: int = 0
    usable: int = 0
    lengths: list[int] = field(default_factory=list)
    learned: int = 0
    characters: int = 0
    pseudo: int = 0
    left_out: int = 0
    unread: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    copies: int = 0
    praised: dict[str, int] = field(default_factory=dict)
    blamed: list[tuple[str, int, int]] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)


def check_file(path: Path, chat_format: ChatFormat | None = None) -> DataReport:
    """Check every row of a file; see ``check_source``."""
    return check_source(Source(path, Reading(), path.stem), chat_format)


def check_source(
    source: Source,
    chat_format: ChatFormat | None = None,
    *,
    most: int | None = None,
    against: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Check every row.

    Args:
        source: the rows.
        chat_format: counts tokens when given.
        most: most tokens that the model takes, to find rows that are too long.
        against: questions that are measured on, to find rows that give their answers away.
        progress: is told how many rows have been looked at, how many bytes of the files, and how many there are (0
            where that is not known).

    Raises:
        DataError: the file as a whole cannot be read as rows.
    """
    family = source.family()
    state = _Pass(Findings(dict(REPAIRS)), chat_format, most)
    left = source.placeholders()
    look = _LOOKS[family.kind]
    told = None if progress is None else partial(_tell, progress, state)
    stream, rows = source.stream(told)
    for block in _blocks(_converted(source, rows, family, state, left)):
        for row, item in block:
            look(state, row, item)
        if chat_format is not None:
            _count_tokens(state, [item for _, item in block], chat_format)
    known = None if against is None else Known(against)
    copies, leaks = _ENDS[family.kind](state, known)
    _ignored(state, family)
    _amounts(state, family)
    _placeholders(state, left)
    return DataReport(
        file=str(source.path),
        row_format=family.name,
        kind=family.kind,
        rows=state.rows,
        usable=state.usable,
        verdict=_verdict(state),
        problems=[
            problem.model_copy(update={"file": stream.facts.file_of(problem.row)})
            for problem in state.findings.problems
        ],
        groups=state.findings.groups,
        tokens=_tokens(state),
        duplicates=copies,
        leaks=leaks,
        characters=state.characters if family.kind == "texts" else None,
        files=[FileRead(kind=shown_kind(kind), encoding=encoding) for kind, encoding in stream.facts.read_as],
        notices=stream.facts.notices(),
    )


def _tell(progress: Progress, state: _Pass, done: int, total: int) -> None:
    progress(state.rows, done, total)


def _converted(
    source: Source, rows: Iterator[Row], family: AnyFormat, state: _Pass, left: Placeholders
) -> Iterator[tuple[Row, Any]]:
    """Go through what rows mean; a row that cannot be used is noted."""
    for row in rows:
        state.rows += 1
        state.unread |= unread(row, family)
        try:
            require_family(source.path, row, family, named=source.reading.format != "auto")
            item = family.convert(source.path, row)
        except DanluError as error:
            state.findings.refused(error, row)
            continue
        state.usable += 1
        left.look(row, item)
        yield row, item


def _blocks(items: Iterator[tuple[Row, Any]]) -> Iterator[list[tuple[Row, Any]]]:
    block: list[tuple[Row, Any]] = []
    for item in items:
        block.append(item)
        if len(block) == _BLOCK:
            yield block
            block = []
    yield block


def _look_at_conversation(state: _Pass, row: Row, item: Conversation) -> None:
    state.pseudo += item.pseudo
    if not item.accepted:
        state.left_out += 1
        return
    state.gathered.add(item)
    turn = uncalled(item.messages)
    if turn is not None:
        state.findings.add("formats.tool_uncalled", "warning", row.index, row.line, turn=turn)
    _look_at_turns(state, row, item)


def _look_at_turns(state: _Pass, row: Row, item: Conversation) -> None:
    asked = ""
    for number, message in enumerate(item.messages):
        texts = [message.content, message.reasoning] if message.reasoning else [message.content]
        for text in texts:
            _look_at_text(state, row, text)
        if item.learn[number]:
            for code, found in wrong_with_answer(message.content, asked):
                state.findings.add(code, "warning", row.index, row.line, found=found)
        if message.role == "user":
            asked = message.content


def _look_at_text(state: _Pass, row: Row, text: str) -> None:
    for code, found in broken_in(text):
        severity: Severity = "info" if code == "checks.invisible" else "warning"
        state.findings.add(code, severity, row.index, row.line, found=found)
    for private in private_in(text):
        state.findings.add(private.code, "warning", row.index, row.line, found=private.masked)


def _look_at_document(state: _Pass, row: Row, item: Document) -> None:
    state.characters += len(item.text)
    _look_at_text(state, row, item.text)
    _note_copy(state, row, item.text)


def _look_at_question(state: _Pass, row: Row, item: Question) -> None:
    _note_copy(state, row, turns_text(item.messages))


def _look_at_preference(state: _Pass, row: Row, item: Preference) -> None:
    said = {name: turns_text(side.messages) for name, side in (("good", item.chosen), ("bad", item.rejected)) if side}
    _note_copy(state, row, "\1".join(f"{name}:{text}" for name, text in said.items()))
    if "good" in said:
        state.praised.setdefault(said["good"], row.index)
    if "bad" in said:
        state.blamed.append((said["bad"], row.index, row.line))
    if item.chosen and item.rejected:
        state.judged["pairs"] += 1
        state.judged["longer"] += len(item.chosen.answer) > len(item.rejected.answer)
    else:
        state.judged["good" if item.chosen else "bad"] += 1
    for side in item.answers:
        _look_at_turns(state, row, side)


def _note_copy(state: _Pass, row: Row, text: str) -> None:
    first = state.seen.setdefault(text, row.index)
    if first != row.index:
        state.copies += 1
        state.findings.add("data.duplicate", "warning", row.index, row.line, other=first)


def _end_of_conversations(state: _Pass, known: Known | None) -> tuple[int, int | None]:
    copies, leaks = look_at_all(state.gathered, state.findings, known)
    if state.pseudo:
        state.findings.add("data.pseudo_rows", "info", rows=state.pseudo, left_out=state.left_out)
    return copies, leaks


def _end_of_others(state: _Pass, known: Known | None) -> tuple[int, int | None]:
    return state.copies, None


def _end_of_judged(state: _Pass, known: Known | None) -> tuple[int, int | None]:
    for text, row, line in state.blamed:
        other = state.praised.get(text)
        if other is not None:
            state.findings.add("data.judged_both", "warning", row, line, other=other)
    pairs, longer = state.judged["pairs"], state.judged["longer"]
    if pairs >= 10 and longer > LONGER_SHARE * pairs:
        state.findings.add("data.chosen_longer", "info", longer=longer, pairs=pairs)
    if state.usable and not pairs and (not state.judged["good"] or not state.judged["bad"]):
        state.findings.add("data.labels_alike", "warning", rows=state.usable)
    return state.copies, None


def _ignored(state: _Pass, family: AnyFormat) -> None:
    ignored = sorted(state.unread - (_SCORES if state.pseudo else frozenset()))
    if ignored:
        named = ", ".join(ignored[:_NAMED]) + (" …" if ignored[_NAMED:] else "")
        state.findings.add("data.unknown_fields", "info", fields=named, known=", ".join(family.shown))


def _placeholders(state: _Pass, left: Placeholders) -> None:
    """Note what nobody has filled in, what may be meant as it is, and what is code."""
    if left.open:
        first = left.open[0].first
        state.findings.add("formats.placeholders", "error", first.index, first.line, **left.params())
    for found in left.doubtful:
        row, line = found.first.index, found.first.line
        state.findings.add("formats.placeholder", "warning", row, line, name=found.shown, plain=found.name)
    if left.code:
        state.findings.add("formats.placeholder_code", "info", rows=left.code)


def _amounts(state: _Pass, family: AnyFormat) -> None:
    """Note when there is little to learn from."""
    learned = state.usable - state.left_out
    if family.kind == "conversations" and learned < FEW_ROWS:
        state.findings.add("data.few_rows", "warning", rows=learned, enough=FEW_ROWS)
    if family.kind == "texts" and state.characters < FEW_CHARACTERS:
        state.findings.add("data.few_characters", "warning", characters=state.characters, enough=FEW_CHARACTERS)
    if family.kind in {"preferences", "labels"} and state.usable < FEW_JUDGED:
        state.findings.add("data.few_judged", "warning", rows=state.usable, enough=FEW_JUDGED)
    total = sum(state.lengths)
    if family.kind == "conversations" and total and state.learned < _FEW_LEARNED * total:
        state.findings.add("checks.few_learned", "info", share=round(100 * state.learned / total, 1))


def _count_tokens(state: _Pass, items: Sequence[Any], chat_format: ChatFormat) -> None:
    for example in _encoded(items, chat_format):
        for part in example.parts:
            state.lengths.append(len(part.input_ids))
            state.learned += part.supervised
            if state.most is not None and len(part.input_ids) > state.most:
                row = example.row
                state.findings.add("checks.too_long", "warning", row, tokens=len(part.input_ids), most=state.most)


def _encoded(items: Sequence[Any], chat_format: ChatFormat) -> list[Example]:
    if not items:
        return []
    if isinstance(items[0], Conversation):
        return encode([item for item in items if item.accepted], chat_format)
    if isinstance(items[0], Preference):
        return encode([answer for item in items for answer in item.answers], chat_format)
    if isinstance(items[0], Document):
        return cut(items, DocumentFormat.of(chat_format.tokenizer), sys.maxsize)
    prompts = [tuple(chat_format.prompt_ids(item.messages)) for item in items]
    return [Example(ids, (False,) * len(ids), 0) for ids in prompts]


def _tokens(state: _Pass) -> TokenReport | None:
    if not state.lengths:
        return None
    lengths = sorted(state.lengths)
    return TokenReport(
        total=sum(lengths),
        supervised=state.learned,
        p50=lengths[len(lengths) // 2],
        p95=lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))],
        max=lengths[-1],
    )


def _verdict(state: _Pass) -> str:
    """Say in one sentence whether the data can be learned from."""
    bad = state.rows - state.usable
    grave = sum(group.severity == "error" for group in state.findings.groups)
    kinds = sum(group.severity == "warning" for group in state.findings.groups)
    if bad:
        return t("checks.verdict_bad", rows=state.rows, usable=state.usable, bad=bad)
    if grave:
        return t("checks.verdict_open", rows=state.rows)
    key = "checks.verdict_look" if kinds else "checks.verdict_good"
    return t(key, rows=state.rows, kinds=kinds)


_LOOKS: Final[dict[str, Callable[[_Pass, Row, Any], None]]] = {
    "conversations": _look_at_conversation,
    "texts": _look_at_document,
    "preferences": _look_at_preference,
    "labels": _look_at_preference,
    "questions": _look_at_question,
}
_ENDS: Final[dict[str, Callable[[_Pass, Known | None], tuple[int, int | None]]]] = {
    "conversations": _end_of_conversations,
    "texts": _end_of_others,
    "preferences": _end_of_judged,
    "labels": _end_of_judged,
    "questions": _end_of_others,
}

"""Whether a row that a model has proposed may be shown to a person: what it must keep, and what it must not do.

Each reason has a code; what is turned down is counted and listed by it. The rules are our own, and cautious: what
passes is still reviewed. Not for rows that people wrote (``data.checks``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

import regex

from danlu.data.alike import Known, Meaning, meaning_of
from danlu.data.checks.content import broken_in, wrong_with_answer
from danlu.data.making.replies import Candidate
from danlu.data.making.tasks import Task, language_of
from danlu.data.split import normalise

Reason = Literal[
    "empty", "same", "known", "language", "figures", "names", "manner", "broken", "long", "statement", "gives_away",
    "ungrounded", "drifted",
]  # fmt: skip
REASONS: Final[tuple[Reason, ...]] = (
    "empty", "same", "known", "language", "figures", "names", "manner", "broken", "long", "statement", "gives_away",
    "ungrounded", "drifted",
)  # fmt: skip
_LONGER: Final = 3
_ROOM: Final = 40
# So much of what an answer says must stand in the passage that it is drawn from.
_GROUNDED: Final = 0.6
# And so many of its words another wording of an answer keeps.
_KEPT: Final = 0.25
_FIGURE: Final = regex.compile(r"https?://[^\s，。）)]+|[\w.+-]+@[\w-]+\.[\w.-]+|\d+(?:[.,:：]\d+)*")
# A name: a capital within a sentence, or Latin letters within Chinese text.
_NAME: Final = regex.compile(r"(?<=[\p{L}\p{N},;:)”\"'’]\s)\p{Lu}[\p{L}\p{N}-]*|(?<=\p{Han}\s?)[A-Za-z][\w.-]*")
_ASKS: Final = regex.compile(r"[?？]\s*$")
_CHINESE_ASKS: Final = regex.compile(
    "[吗呢么]\\s*[。.]?$|谁|什么|哪|怎么|怎样|如何|几|多少|多久|多远|为什么|为何|何时|是否|能不能|可不可以|有没有"
)


class Judge:
    """Judges proposals one after the other; what was taken must not be proposed again.

    Args:
        questions: questions that there are already.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        there = list(questions)
        self._known = Known(there)
        self._taken: set[tuple[str, str]] = set()
        self._meanings: set[Meaning] = set()
        self._questions = {normalise(question) for question in there}

    def why_not(self, task: Task, candidate: Candidate) -> Reason | None:
        """Return why a proposal is turned down; None where it is not."""
        made = candidate.answer if task.kind == "variation" else candidate.question
        if not made.strip() or not candidate.answer.strip():
            return "empty"
        if any(True for text in (candidate.question, candidate.answer) for _ in broken_in(text)):
            return "broken"
        if self._is_there(task, candidate):
            return "same"
        return self._why_not_of(task, candidate)

    def take(self, task: Task, candidate: Candidate) -> None:
        """Note that a proposal is kept."""
        self._taken.add(_key(candidate))
        if task.kind != "variation":
            self._meanings.add(meaning_of(candidate.question))

    def _is_there(self, task: Task, candidate: Candidate) -> bool:
        if _key(candidate) in self._taken:
            return True
        if task.kind == "variation":
            return normalise(candidate.answer) == normalise(task.answer)
        if normalise(candidate.question) in self._questions:
            return True
        meaning = meaning_of(candidate.question)
        # Whatever its answer would be: the same question with two answers teaches neither.
        return meaning in self._meanings or (task.kind == "paraphrase" and meaning == meaning_of(task.question))

    def _why_not_of(self, task: Task, candidate: Candidate) -> Reason | None:
        if task.kind == "paraphrase":
            return _wrong_wording(candidate.question, task.question) or _wrong_question(candidate, task.question)
        if task.kind == "variation":
            wrong = _wrong_wording(candidate.answer, task.answer) or _wrong_manner(candidate)
            return wrong or _drifted(candidate.answer, task.answer)
        if task.kind == "decline":
            return "known" if self._known.has(candidate.question) else _wrong_question(candidate, "?")
        return _wrong_draft(task, candidate) or _wrong_question(candidate, "?") or _wrong_manner(candidate)


def _wrong_wording(made: str, source: str) -> Reason | None:
    """Return what another wording of a text has lost or gained."""
    if language_of(made) != language_of(source):
        return "language"
    if len(made) > _LONGER * len(source) + _ROOM:
        return "long"
    if Counter(_figures(made)) != Counter(_figures(source)):
        return "figures"
    lost = [name for name in _NAME.findall(source) if name.casefold() not in made.casefold()]
    return "names" if lost else None


def _wrong_question(candidate: Candidate, source: str) -> Reason | None:
    question = candidate.question
    asks = _ASKS.search(question) or (language_of(question) == "zh" and _CHINESE_ASKS.search(question))
    if _ASKS.search(source) and not asks:
        return "statement"
    said, asked = normalise(candidate.answer), normalise(question)
    return "gives_away" if len(said) > 8 and said in asked else None


def _drifted(made: str, source: str) -> Reason | None:
    """Return whether a wording has hardly a word of its source: it says something else."""
    words, there = meaning_of(source).words, meaning_of(made).words
    return "drifted" if words and len(words & there) < _KEPT * len(words) else None


def _wrong_manner(candidate: Candidate) -> Reason | None:
    if normalise(candidate.answer) == normalise(candidate.question):
        return "manner"
    return "manner" if any(True for _ in wrong_with_answer(candidate.answer, candidate.question)) else None


def _wrong_draft(task: Task, candidate: Candidate) -> Reason | None:
    """Return whether an answer says what its passage does not."""
    assert task.passage is not None
    passage = " ".join((*task.passage.headings, task.passage.text))
    if language_of(candidate.answer) != language_of(passage):
        return "language"
    if not set(_figures(candidate.answer)) <= set(_figures(passage)):
        return "figures"
    words, there = meaning_of(candidate.answer).words, meaning_of(passage).words
    return "ungrounded" if words and len(words & there) < _GROUNDED * len(words) else None


def _figures(text: str) -> list[str]:
    """Return the numbers and addresses of a text, without the full stop of a sentence that one may end."""
    return [found.rstrip(".,;:!?") for found in _FIGURE.findall(text)]


def _key(candidate: Candidate) -> tuple[str, str]:
    return normalise(candidate.question), normalise(candidate.answer)

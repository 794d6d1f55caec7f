"""What a model's reply says: tolerant of numbers, bullets, quotation marks and JSON, strict about what is a text.

Not for whether a text is any good (``judging``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import regex

from danlu.data.making.tasks import Task

_BULLET: Final = regex.compile(r"^\s*(?:[-*•·]\s+|[(（]?\d{1,2}\s*[.)）、:：]\s*|[①-⑳]\s*)+")
_LABEL: Final = regex.compile(r"^(?:question|q|answer|a|问题|问|回答|答案|答|问法|说法)\s*\d{0,2}\s*[:：]\s*", regex.I)
_QUOTES: Final = {'"': '"', "“": "”", "「": "」", "'": "'", "『": "』", "**": "**"}
_PAIR: Final = regex.compile(
    r"^\W{0,4}(?:question|q|问题|问)\s*\d{0,2}\W{0,3}[:：][*_]{0,2}(?P<question>.*?)"
    r"^\W{0,4}(?:answer|a|回答|答案|答)\s*\d{0,2}\W{0,3}[:：][*_]{0,2}(?P<answer>.*?)(?=^\W{0,4}(?:question|q|问题|问)\s*\d{0,2}\W{0,3}[:：]|\Z)",
    regex.I | regex.M | regex.S,
)
_DASHES: Final = regex.compile(r"^\s*(?:-{3,}|—{2,}|\*{3,})\s*$", regex.M)
_FENCE: Final = regex.compile(r"^\s*```\w*\s*$", regex.M)


@dataclass(frozen=True)
class Candidate:
    """A row that a model has proposed."""

    question: str
    answer: str


def candidates(task: Task, reply: str) -> list[Candidate]:
    """Return what a reply proposes for a task, in its order; none where it is not of the form that was asked for."""
    text = _FENCE.sub("", reply).strip()
    if task.kind == "draft":
        return [Candidate(_bare(question), answer.strip()) for question, answer in _pairs(text)]
    if task.kind == "variation":
        return [Candidate(task.question, _bare(answer)) for answer in _answers(text, "\n" in task.answer.strip())]
    answer = task.answer
    return [Candidate(question, answer) for question in _lines(text)]


def _lines(text: str) -> Iterator[str]:
    """Go through the lines of a list; what announces it ("Here are three:") is none of them."""
    listed = _json(text)
    if listed is not None:
        yield from (_bare(str(item)) for item in listed if isinstance(item, str))
        return
    for line in text.splitlines():
        bare = _bare(line)
        if bare and not bare.endswith((":", "：")):
            yield bare


def _answers(text: str, several_lines: bool) -> Iterator[str]:
    listed = _json(text)
    if listed is not None:
        yield from (str(item) for item in listed if isinstance(item, str))
    elif _DASHES.search(text):
        yield from (part for part in (part.strip() for part in _DASHES.split(text)) if part)
    elif several_lines:
        yield text
    else:
        yield from _lines(text)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    listed = _json(text)
    if listed is not None:
        for item in listed:
            if isinstance(item, dict):
                by_name = {str(name).casefold(): value for name, value in item.items()}
                question = by_name.get("question", by_name.get("q", by_name.get("问题", by_name.get("问"))))
                answer = by_name.get("answer", by_name.get("a", by_name.get("回答", by_name.get("答"))))
                if isinstance(question, str) and isinstance(answer, str):
                    yield question, answer
        return
    for found in _PAIR.finditer(text):
        yield found["question"].strip(), found["answer"].strip()


def _json(text: str) -> list[object] | None:
    """Return the list that a text is, as JSON; None where it is none."""
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start or text[:start].strip().count("\n") > 2:
        return None
    try:
        value = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _bare(line: str) -> str:
    """Return a line without its bullet, its label and the quotation marks around all of it."""
    text = str(_LABEL.sub("", _BULLET.sub("", line.strip()))).strip()
    for opening, closing in _QUOTES.items():
        inner = text.removeprefix(opening).removesuffix(closing)
        if len(inner) == len(text) - len(opening) - len(closing) and closing not in inner:
            return inner.strip()
    return text

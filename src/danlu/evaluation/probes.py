"""Probe questions: what the model should be able to say, and how an answer is judged.

A probe is judged by words that must, may or must not occur, or, where only a reference answer is known, by how much
of the reference the answer repeats. Not an opinion of another model: the same answer always gets the same verdict.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from danlu.data.conversations import Conversation
from danlu.data.rows import at_line, lines_of, read_text
from danlu.data.split import normalise
from danlu.errors import DataError
from danlu.models.messages import Message

# Share of the reference that an answer repeats in order (difflib's ratio over normalised characters). Two answers
# that say the same in the same words score above 0.8, answers to other questions below 0.4 on the sample data.
REFERENCE_RATIO: Final = 0.6


class Probe(BaseModel):
    """One probe question.

    Attributes:
        question: what is asked.
        must_include: words that the answer must all contain.
        any_of: words of which it must contain one.
        must_not: words that it must not contain.
        history: earlier turns as [question, answer] pairs.
        unanswerable: whether the right answer is to say that one does not know.
        reference: the answer in the data, for probes made from rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    must_include: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    unanswerable: bool = False
    reference: str | None = None
    system: str | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the answer."""
        turns = [Message("system", self.system)] if self.system else []
        for question, answer in self.history:
            turns += [Message("user", question), Message("assistant", answer)]
        return (*turns, Message("user", self.question))

    def passes(self, answer: str) -> bool:
        """Judge an answer."""
        folded = answer.casefold()
        if any(word.casefold() in folded for word in self.must_not):
            return False
        if not all(word.casefold() in folded for word in self.must_include):
            return False
        if self.any_of and not any(word.casefold() in folded for word in self.any_of):
            return False
        if self.reference is not None:
            return reference_ratio(self.reference, answer) >= REFERENCE_RATIO
        return bool(answer.strip())


def reference_ratio(reference: str, answer: str) -> float:
    """Return how much of two texts is the same in the same order, 0 to 1."""
    return difflib.SequenceMatcher(None, normalise(reference), normalise(answer), autojunk=False).ratio()


def read_probes(path: Path) -> list[Probe]:
    """Read a probe file (JSON Lines).

    Raises:
        DataError: missing, no UTF-8, no JSON, or a line that is no probe; the message names the line and field.
    """
    probes: list[Probe] = []
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        if not line.strip():
            continue
        where = at_line(path, number)
        try:
            probes.append(Probe.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            raise DataError("data.not_json", where, reason=error.msg) from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "–"
            raise DataError("evaluation.bad_probe", where, field=field, reason=first["msg"]) from None
    return probes


def probes_from(conversations: Sequence[Conversation], count: int, seed: int) -> list[Probe]:
    """Make probes of at most ``count`` conversations: the question, judged against the answer in the data.

    Conversations with tools are passed over: what a tool answers is not there when the question is asked.
    """
    chosen = [item for item in conversations if not _calls_tools(item)]
    if len(chosen) > count:
        chosen = random.Random(seed).sample(chosen, count)  # noqa: S311  a sample, not a secret
    probes: list[Probe] = []
    for item in chosen:
        turns = [message for message in item.messages if message.role != "system"]
        pairs = tuple((turns[i].content, turns[i + 1].content) for i in range(0, len(turns) - 2, 2))
        system = next((message.content for message in item.messages if message.role == "system"), None)
        probes.append(Probe(question=item.question, reference=item.answer, history=pairs, system=system))
    return probes


def _calls_tools(conversation: Conversation) -> bool:
    return bool(conversation.tools) or any(turn.role == "tool" or turn.tool_calls for turn in conversation.messages)

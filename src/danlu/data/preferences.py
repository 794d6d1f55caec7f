"""Rows to judged answers: pairs of a chosen and a rejected answer, or single answers with a label.

Two shapes of each are read, row by row: Alpaca-like (``instruction``, ``input``, …) and TRL-like (``prompt``, …). Not
for token ids (``judged``), and not for answers that are simply learned (``conversations``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from danlu.data.conversations import Conversation, alpaca_prompt
from danlu.data.rows import JsonValue, Row, kind_of, place
from danlu.errors import DataError
from danlu.models.messages import Message

_ROLES: Final = ("system", "user", "assistant")


@dataclass(frozen=True)
class Preference:
    """Answers to one prompt, judged: a chosen and a rejected one, or only one of them.

    Attributes:
        chosen: the prompt with the answer that is wanted, of which only the answer is learned; None of a label "bad".
        rejected: the same with the answer that is not; None of a label "good".
    """

    chosen: Conversation | None
    rejected: Conversation | None

    @property
    def answers(self) -> tuple[Conversation, ...]:
        """The answers there are, the chosen one first."""
        return tuple(item for item in (self.chosen, self.rejected) if item is not None)

    @property
    def paired(self) -> bool:
        """Whether it has both answers."""
        return len(self.answers) == 2

    @property
    def question(self) -> str:
        """The last thing the user says."""
        return self.answers[0].question

    @property
    def row(self) -> int:
        """Number of the row it came from, from 1."""
        return self.answers[0].row

    @property
    def line(self) -> int:
        """Line of the file that row begins on, from 1."""
        return self.answers[0].line


class JudgedFormat(Protocol):
    """A family of rows with judged answers; see ``conversations.RowFormat``."""

    name: str
    fields: frozenset[str]

    def matches(self, row: Row) -> bool:
        """Say whether a row looks like one of this family."""

    def convert(self, file: Path | str, row: Row) -> Preference:
        """Turn a row into judged answers, or raise a ``DataError`` that names the row and the field."""


class PairFormat:
    """``chosen`` and ``rejected`` beside ``instruction`` (and ``input``, ``system``, ``history``) or ``prompt``.

    With ``prompt`` (TRL's name), prompt and answers are texts or lists of ``{role, content}``; the prompt may stand at
    the beginning of both answers, and of lists may then be left out.
    """

    name = "pairs"
    fields = frozenset({"instruction", "input", "system", "history", "prompt", "chosen", "rejected"})

    def matches(self, row: Row) -> bool:
        """Say whether the row has a chosen or a rejected answer."""
        return "chosen" in row.values or "rejected" in row.values

    def convert(self, file: Path | str, row: Row) -> Preference:
        """Read one row.

        Raises:
            DataError: a field is missing, empty or of the wrong shape, or both answers are the same.
        """
        chosen, rejected = (_given(file, row, field) for field in ("chosen", "rejected"))
        if isinstance(chosen, list) != isinstance(rejected, list):
            raise DataError("data.sides_differ", place(file, row, "rejected"), kind=kind_of(rejected))
        if "instruction" in row.values:
            prompt = alpaca_prompt(file, row)
        elif "prompt" in row.values:
            prompt = _prompt(file, row)
        elif isinstance(chosen, list) and isinstance(rejected, list):
            sides = (_messages(file, row, "chosen", chosen), _messages(file, row, "rejected", rejected))
            prompt = _common(*sides)
        else:
            raise DataError("data.prompt_missing", place(file, row, "prompt"), field="prompt")
        _check_prompt(file, row, prompt)
        if isinstance(chosen, str) and isinstance(rejected, str):
            # Some sets repeat the prompt in both texts.
            said = prompt[-1].content
            if "prompt" in row.values and chosen.startswith(said) and rejected.startswith(said):
                chosen, rejected = chosen[len(said) :].lstrip(), rejected[len(said) :].lstrip()
        good = _answer(file, row, "chosen", chosen, prompt)
        bad = _answer(file, row, "rejected", rejected, prompt)
        if good.strip() == bad.strip():
            raise DataError("data.sides_equal", place(file, row, "rejected"), field="rejected")
        return Preference(_conversation(row, prompt, good), _conversation(row, prompt, bad))


class LabelFormat:
    """One answer and its label: ``instruction``, ``output``, ``kto_tag``; or ``prompt``, ``completion``, ``label``."""

    name = "labels"
    fields = frozenset({
        "instruction", "input", "system", "history", "output", "kto_tag", "prompt", "completion", "label",
    })  # fmt: skip

    def matches(self, row: Row) -> bool:
        """Say whether the row has a label."""
        return "kto_tag" in row.values or ("completion" in row.values and "label" in row.values)

    def convert(self, file: Path | str, row: Row) -> Preference:
        """Read one row.

        Raises:
            DataError: a field is missing, empty or of the wrong shape, or the label is not true or false.
        """
        alpaca = "kto_tag" in row.values
        label, answer = ("kto_tag", "output") if alpaca else ("label", "completion")
        wanted = row.values.get(label)
        if not isinstance(wanted, bool):
            raise DataError("data.label_not_bool", place(file, row, label), field=label, kind=kind_of(wanted))
        prompt = alpaca_prompt(file, row) if alpaca else _prompt(file, row)
        _check_prompt(file, row, prompt)
        said = _answer(file, row, answer, _given(file, row, answer), prompt)
        conversation = _conversation(row, prompt, said)
        return Preference(conversation, None) if wanted else Preference(None, conversation)


JUDGED_FORMATS: Final[tuple[JudgedFormat, ...]] = (PairFormat(), LabelFormat())


def judged_format(rows: Sequence[Row]) -> JudgedFormat | None:
    """Return the format of rows that hold judged answers, or None."""
    return next((candidate for candidate in JUDGED_FORMATS if candidate.matches(rows[0])), None)


def _given(file: Path | str, row: Row, field: str) -> JsonValue:
    value = row.values.get(field)
    if value is None:
        raise DataError("data.judged_missing", place(file, row, field), field=field)
    if not isinstance(value, str | list):
        raise DataError("data.messages_shape", place(file, row, field), field=field, kind=kind_of(value))
    return value


def _prompt(file: Path | str, row: Row) -> tuple[Message, ...]:
    value = row.values.get("prompt")
    if isinstance(value, str) and value.strip():
        return (Message("user", value),)
    if isinstance(value, list) and value:
        return _messages(file, row, "prompt", value)
    if value is None or value in ("", []) or isinstance(value, str):
        raise DataError("data.prompt_missing", place(file, row, "prompt"), field="prompt")
    raise DataError("data.messages_shape", place(file, row, "prompt"), field="prompt", kind=kind_of(value))


def _messages(file: Path | str, row: Row, field: str, value: list[JsonValue]) -> tuple[Message, ...]:
    messages = []
    for item in value:
        role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
        if role not in _ROLES or not isinstance(content, str):
            raise DataError("data.messages_shape", place(file, row, field), field=field, kind=kind_of(item))
        messages.append(Message(str(role), content))  # type: ignore[arg-type]
    return tuple(messages)


def _common(one: Sequence[Message], other: Sequence[Message]) -> tuple[Message, ...]:
    """Return what two conversations begin with, which is their prompt."""
    limit = min(len(one), len(other)) - 1
    count = next((at for at in range(limit) if one[at] != other[at]), max(limit, 0))
    return tuple(one[:count])


def _check_prompt(file: Path | str, row: Row, prompt: Sequence[Message]) -> None:
    field = "instruction" if "instruction" in row.values else "prompt"
    if not prompt or prompt[-1].role != "user":
        raise DataError("data.prompt_end", place(file, row, field), field=field)


def _answer(file: Path | str, row: Row, field: str, value: JsonValue, prompt: Sequence[Message]) -> str:
    """Return the one answer that a side adds to the prompt."""
    if isinstance(value, list):
        messages = _messages(file, row, field, value)
        if messages[: len(prompt)] == tuple(prompt):
            messages = messages[len(prompt) :]
        if len(messages) != 1 or messages[0].role != "assistant":
            raise DataError("data.one_answer", place(file, row, field), field=field)
        text = messages[0].content
    else:
        text = str(value)
    if not text.strip():
        raise DataError("data.answer_empty", place(file, row, field), field=field)
    return text


def _conversation(row: Row, prompt: Sequence[Message], answer: str) -> Conversation:
    """Only the judged answer is learned: what the assistant said before belongs to the prompt."""
    learn = (False,) * len(prompt) + (True,)
    return Conversation((*prompt, Message("assistant", answer)), learn, row.index, row.line)

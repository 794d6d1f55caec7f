"""Rows to judged answers: pairs of a chosen and a rejected answer, or single answers with a label.

What was asked stands in Alpaca's fields, in a column of any name that asks (TRL's ``prompt``), or in a list of messages
before the answer. Not for token ids (``data.judged``), nor for answers that are simply learned (``alpaca``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from danlu.data.conversations import Conversation
from danlu.data.formats.alpaca import alpaca_prompt
from danlu.data.formats.base import Kind, excerpt, tools_of
from danlu.data.formats.columns import one_answer
from danlu.data.formats.messages import LISTS, MessagesFormat, list_field, read_turns, with_system
from danlu.data.formats.names import ANSWERS, CONTEXTS, QUESTIONS, SYSTEMS, answering, asking, in_their_words, moved
from danlu.data.formats.turns import Turn, require_order, turn_of, turns_of
from danlu.data.preferences import Preference
from danlu.data.rows import JsonValue, Row, kind_of, place
from danlu.errors import DataError
from danlu.models.messages import Message

_ASKED: Final = QUESTIONS | CONTEXTS | SYSTEMS | frozenset({"history", "tools", "functions"})
_LABELS: Final = ("kto_tag", "label", "thumbs", "评价")
# What a label may say beside true and false; compared without case and without the colour of a thumb.
_GOOD: Final = frozenset({"good", "yes", "true", "1", "up", "like", "positive", "👍", "好", "赞", "是", "对"})
_BAD: Final = frozenset({"bad", "no", "false", "0", "down", "dislike", "negative", "👎", "差", "坏", "踩", "否", "错"})
_COLOURS: Final = dict.fromkeys([0xFE0F, *range(0x1F3FB, 0x1F400)])


class PairFormat:
    """``chosen`` and ``rejected`` beside ``instruction`` (``input``, ``system``, ``history``), ``prompt`` or messages.

    With ``prompt`` (TRL's name), prompt and answers are texts or lists of messages; the prompt may stand at the
    beginning of both answers, and of lists may then be left out. Beside ``messages`` or ``conversations`` each answer
    is a message.
    """

    name = "pairs"
    kind: Kind = "preferences"
    fields = frozenset({"chosen", "rejected"}) | _ASKED | frozenset(LISTS)
    folded = True
    shown: tuple[str, ...] = ("prompt", "messages", "context", "system", "history", "chosen", "rejected", "tools")

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
        prompt = self._prompt(file, row, chosen, rejected)
        if isinstance(chosen, str) and isinstance(rejected, str):
            # Some sets repeat the prompt in both texts.
            said = prompt[-1].content
            if chosen.startswith(said) and rejected.startswith(said):
                chosen, rejected = chosen[len(said) :].lstrip(), rejected[len(said) :].lstrip()
        good = _answer(file, row, "chosen", chosen, prompt)
        bad = _answer(file, row, "rejected", rejected, prompt)
        if good == bad or (good.content.strip() and good.content.strip() == bad.content.strip()):
            raise DataError("data.sides_equal", place(file, row, "rejected"), field="rejected")
        return Preference(_conversation(file, row, prompt, good), _conversation(file, row, prompt, bad))

    def _prompt(self, file: Path | str, row: Row, chosen: JsonValue, rejected: JsonValue) -> tuple[Message, ...]:
        asks = asking(row)
        if asks is not None:
            prompt = _prompt(file, row, asks)
        elif MessagesFormat().matches(row):
            return _asked(file, row, read_turns(file, row))
        elif isinstance(chosen, list) and isinstance(rejected, list):
            sides = (_messages(file, row, "chosen", chosen), _messages(file, row, "rejected", rejected))
            prompt = _common(*sides)
        else:
            raise DataError("data.prompt_missing", place(file, row, "prompt"), field="prompt")
        _check_prompt(file, row, prompt, asks or "chosen")
        return prompt


class LabelFormat:
    """One answer and its label: a column that asks and one that answers with ``kto_tag`` or ``label``, or messages.

    Of messages the last one is judged. The label is true or false, 1 or 0, or one of a few words and signs.
    """

    name = "labels"
    kind: Kind = "labels"
    fields = frozenset(_LABELS) | ANSWERS | _ASKED | frozenset(LISTS)
    folded = True
    shown: tuple[str, ...] = ("prompt", "completion", "messages", "context", "system", "history", "label", "tools")

    def matches(self, row: Row) -> bool:
        """Say whether the row has an answer and a label; a ``label`` beside columns, often a topic, must judge."""
        field = label_field(row)
        if field is None:
            return False
        if MessagesFormat().matches(row) or "completion" in row.values or field == "kto_tag":
            return True
        return answering(row) is not None and (field != "label" or _judgement(row.values[field]) is not None)

    def convert(self, file: Path | str, row: Row) -> Preference:
        """Read one row.

        Raises:
            DataError: a field is missing, empty or of the wrong shape, or the label says neither good nor bad.
        """
        wanted = _wanted(file, row)
        if MessagesFormat().matches(row):
            turns = read_turns(file, row)
            require_order(file, row, str(list_field(row)), turns)
            messages = tuple(turn.message for turn in turns)
            prompt, said = messages[:-1], messages[-1]
        else:
            asks, answers = asking(row), answering(row)
            if asks is None:
                raise DataError("data.prompt_missing", place(file, row, "prompt"), field="prompt")
            prompt = _prompt(file, row, asks)
            _check_prompt(file, row, prompt, asks)
            given = _given(file, row, answers or "output")
            if isinstance(given, list) and all(isinstance(item, str) for item in given):
                given = one_answer(file, row, answers or "output")
            said = _answer(file, row, answers or "output", given, prompt)
        conversation = _conversation(file, row, prompt, said)
        return Preference(conversation, None) if wanted else Preference(None, conversation)


def label_field(row: Row) -> str | None:
    """Return the field of a row that holds a label."""
    return next((name for name in _LABELS if name in row.values), None)


def _judgement(value: JsonValue) -> bool | None:
    """Return whether a label says good or bad; None where it says neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in {0, 1}:
        return bool(value)
    word = value.translate(_COLOURS).strip().casefold() if isinstance(value, str) else ""
    return word in _GOOD if word in _GOOD | _BAD else None


def _wanted(file: Path | str, row: Row) -> bool:
    field = label_field(row) or _LABELS[0]
    value = row.values.get(field)
    wanted = _judgement(value)
    if wanted is not None:
        return wanted
    if isinstance(value, str):
        raise DataError("formats.label_word", place(file, row, field), field=field, value=excerpt(value))
    raise DataError("data.label_not_bool", place(file, row, field), field=field, kind=kind_of(value))


def _given(file: Path | str, row: Row, field: str) -> JsonValue:
    value = row.values.get(field)
    if value is None:
        raise DataError("data.judged_missing", place(file, row, field), field=field)
    if not isinstance(value, str | list | dict):
        raise DataError("data.messages_shape", place(file, row, field), field=field, kind=kind_of(value))
    return value


def _prompt(file: Path | str, row: Row, asks: str) -> tuple[Message, ...]:
    """Return what was asked, with the system prompt, the context and the history that stand beside it."""
    value = row.values[asks]
    if isinstance(value, list) and value:
        turns = with_system(file, row, turns_of(file, row, asks, value))
        return tuple(turn.message for turn in turns)
    if value is None or value in ("", []) or (isinstance(value, str) and not value.strip() and asks != "instruction"):
        raise DataError("data.prompt_missing", place(file, row, asks), field=asks)
    if not isinstance(value, str):
        raise DataError("data.messages_shape", place(file, row, asks), field=asks, kind=kind_of(value))
    renamed, called = moved(file, row, asks)
    try:
        return alpaca_prompt(file, renamed)
    except DataError as error:
        raise in_their_words(file, row, error, called) from None


def _messages(file: Path | str, row: Row, field: str, value: list[JsonValue]) -> tuple[Message, ...]:
    return tuple(turn.message for turn in turns_of(file, row, field, value))


def _asked(file: Path | str, row: Row, turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Return messages that end with what both answers reply to."""
    require_order(file, row, str(list_field(row)), turns, answered=False)
    return tuple(turn.message for turn in turns)


def _common(one: Sequence[Message], other: Sequence[Message]) -> tuple[Message, ...]:
    """Return what two conversations begin with, which is their prompt."""
    limit = min(len(one), len(other)) - 1
    count = next((at for at in range(limit) if one[at] != other[at]), max(limit, 0))
    return tuple(one[:count])


def _check_prompt(file: Path | str, row: Row, prompt: Sequence[Message], field: str) -> None:
    if not prompt or prompt[-1].role not in {"user", "tool"}:
        raise DataError("data.prompt_end", place(file, row, field), field=field)


def _answer(file: Path | str, row: Row, field: str, value: JsonValue, prompt: Sequence[Message]) -> Message:
    """Return the one answer that a side adds to the prompt."""
    if isinstance(value, dict):
        said = turn_of(file, row, field, value).message
        if said.role != "assistant":
            raise DataError("data.one_answer", place(file, row, field), field=field)
    elif isinstance(value, list):
        messages = _messages(file, row, field, value)
        if messages[: len(prompt)] == tuple(prompt):
            messages = messages[len(prompt) :]
        if len(messages) != 1 or messages[0].role != "assistant":
            raise DataError("data.one_answer", place(file, row, field), field=field)
        said = messages[0]
    else:
        said = Message("assistant", str(value))
    if not said.content.strip() and not said.tool_calls:
        raise DataError("data.answer_empty", place(file, row, field), field=field)
    return said


def _conversation(file: Path | str, row: Row, prompt: Sequence[Message], answer: Message) -> Conversation:
    """Only the judged answer is learned: what the assistant said before belongs to the prompt."""
    learn = (False,) * len(prompt) + (True,)
    return Conversation((*prompt, answer), learn, row.index, row.line, tools=tools_of(file, row))

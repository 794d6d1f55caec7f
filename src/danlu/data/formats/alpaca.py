"""The Alpaca family: instruction, input, output. Other names of columns are read by ``columns``."""

from __future__ import annotations

from pathlib import Path

from danlu.data.conversations import Conversation
from danlu.data.formats.base import Kind, accepted_of, excerpt, text_of, tools_of, weight_of
from danlu.data.formats.names import ANSWERS, KEPT, QUESTIONS, fold
from danlu.data.rows import Row, kind_of, place
from danlu.errors import DataError
from danlu.models.messages import Message


class AlpacaFormat:
    """``instruction``, optional ``input``, ``output``, optional ``system`` and ``history`` of [question, answer] pairs.

    Instruction and input are joined by a line break, as the field's tools do. ``weight`` says how much a row counts;
    ``accepted`` stands in rows that a model has answered, beside the scores of the answer.
    """

    name = "alpaca"
    kind: Kind = "conversations"
    shown: tuple[str, ...] = ("instruction", "input", "output", "system", "history", "weight", "accepted", "tools")
    fields = frozenset(shown) | KEPT
    folded = False

    def matches(self, row: Row) -> bool:
        """Say whether the row has an instruction, or an output, and nothing else that answers or asks."""
        if "instruction" in row.values:
            others = (name for name, value in row.values.items() if value is not None and fold(name) in ANSWERS)
            return "output" in row.values or not any(others)
        return "output" in row.values and not any(fold(name) in QUESTIONS for name in row.values)

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Read one row.

        Raises:
            DataError: a field is missing, empty, or of the wrong type.
        """
        prompt = alpaca_prompt(file, row)
        accepted = accepted_of(file, row)
        # What is not learned may be an empty answer that counts nothing.
        learned = accepted is not False
        messages = (*prompt, Message("assistant", text_of(file, row, "output", required=learned)))
        learn = tuple(message.role == "assistant" for message in messages)
        weight = weight_of(file, row) if learned else 1.0
        tools = tools_of(file, row)
        return Conversation(messages, learn, row.index, row.line, weight, accepted is not None, learned, tools)


def alpaca_prompt(file: Path | str, row: Row) -> tuple[Message, ...]:
    """Return what stands before the answer of an Alpaca-like row: system prompt, history and question.

    Raises:
        DataError: a field is missing, empty, or of the wrong type.
    """
    extra = text_of(file, row, "input")
    # Some sets leave the instruction empty where the input says everything.
    instruction = text_of(file, row, "instruction", required=not extra.strip())
    system = text_of(file, row, "system")
    messages: list[Message] = [Message("system", system)] if system else []
    messages += _history(file, row)
    messages.append(Message("user", "\n".join(part for part in (instruction, extra) if part)))
    return tuple(messages)


def _history(file: Path | str, row: Row) -> list[Message]:
    value = row.values.get("history")
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError("data.history_shape", place(file, row, "history"), kind=kind_of(value))
    messages: list[Message] = []
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)):
            raise DataError("data.history_shape", place(file, row, "history"), kind=excerpt(pair))
        messages += [Message("user", str(pair[0])), Message("assistant", str(pair[1]))]
    return messages

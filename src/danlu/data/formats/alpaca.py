"""The Alpaca family, and rows with one column for the question and one for the answer, in any language."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from danlu.data.conversations import Conversation
from danlu.data.formats.base import Kind, accepted_of, excerpt, text_of, tools_of, weight_of
from danlu.data.formats.turns import Turn, require_order, turns_of
from danlu.data.rows import JsonValue, Row, kind_of, place
from danlu.errors import DataError
from danlu.models.messages import Message, Role

# Names of columns, folded (``fold``): what people call the question, the answer, and what belongs to the question.
QUESTIONS: Final = frozenset({
    "question", "questions", "q", "query", "prompt", "ask", "input", "user", "instruction", "problem", "request",
    "问题", "问", "提问", "用户问题", "指令", "用户", "題目", "题目", "問題", "質問", "질문",
    "pregunta", "frage", "domanda", "pergunta", "вопрос",
})  # fmt: skip
ANSWERS: Final = frozenset({
    "answer", "answers", "a", "response", "reply", "completion", "output", "assistant", "solution", "target",
    "答案", "答", "回答", "回复", "标准答案", "输出", "助手", "解答", "回覆", "答え", "답변", "답",
    "respuesta", "antwort", "réponse", "reponse", "risposta", "resposta", "ответ",
})  # fmt: skip
CONTEXTS: Final = frozenset(
    {"context", "input", "上下文", "背景", "材料", "补充", "输入", "contexto", "kontext", "contexte"}
)
SYSTEMS: Final = frozenset({"system", "system_prompt", "systemprompt", "系统", "系统提示", "系统提示词"})
_MORE: Final = frozenset({"weight", "accepted", "tools"})


def fold(name: str) -> str:
    """Return a column's name without case, white space, underscores, numbering marks and colons."""
    return re.sub(r"[\s_\-:：.*#]+", "", name).casefold()


class AlpacaFormat:
    """``instruction``, optional ``input``, ``output``, optional ``system`` and ``history`` of [question, answer] pairs.

    Instruction and input are joined by a line break, as the field's tools do. ``weight`` says how much a row counts;
    ``accepted`` stands in rows that a model has answered, beside the scores of the answer.
    """

    name = "alpaca"
    kind: Kind = "conversations"
    fields = frozenset({"instruction", "input", "output", "system", "history", "weight", "accepted", "tools"})

    def matches(self, row: Row) -> bool:
        """Say whether the row has an instruction, or an output and nothing else that asks."""
        if "instruction" in row.values:
            return True
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


class ColumnsFormat:
    """A column that asks and one that answers, whatever they are called; TRL's ``prompt`` and ``completion`` too.

    Either may be a list of messages. A third column with a context is appended to the question, as Alpaca's ``input``.
    """

    name = "columns"
    kind: Kind = "conversations"
    fields = QUESTIONS | ANSWERS | CONTEXTS | SYSTEMS | _MORE

    def matches(self, row: Row) -> bool:
        """Say whether one column asks and another one answers."""
        return _columns(row) is not None

    def convert(self, file: Path | str, row: Row) -> Conversation:
        """Read one row.

        Raises:
            DataError: a column is missing, empty, or of the wrong type.
        """
        found = _columns(row)
        if found is None:
            names = ", ".join(list(row.values)[:8]) or "–"
            raise DataError("formats.no_columns", place(file, row), found=names)
        asks, answers = found
        values = row.values
        conversation = isinstance(values[answers], list) and not _accepted_answers(values[answers])
        if conversation or isinstance(values[asks], list):
            return self._messages(file, row, asks, answers)
        moved: dict[str, JsonValue] = {"instruction": values[asks], "output": _one_answer(file, row, answers)}
        for name, value in values.items():
            if name not in {asks, answers}:
                if fold(name) in CONTEXTS:
                    moved["input"] = value
                elif fold(name) in {fold(other) for other in SYSTEMS}:
                    moved["system"] = value
                elif name in _MORE or name == "history":
                    moved[name] = value
        try:
            return AlpacaFormat().convert(file, replace(row, values=moved))
        except DataError as error:
            raise _renamed(file, row, error, {"instruction": asks, "output": answers}) from None

    def _messages(self, file: Path | str, row: Row, asks: str, answers: str) -> Conversation:
        question = _as_turns(file, row, asks, "user")
        system = next((name for name in row.values if fold(name) in {fold(other) for other in SYSTEMS}), None)
        if system is not None and (text := text_of(file, row, system)):
            question = [Turn(Message("system", text), learn=False), *question]
        turns = [*question, *_as_turns(file, row, answers, "assistant")]
        require_order(file, row, answers, turns)
        learn = tuple(turn.learn and number >= len(question) for number, turn in enumerate(turns))
        accepted = accepted_of(file, row)
        return Conversation(
            tuple(turn.message for turn in turns),
            learn,
            row.index,
            row.line,
            weight_of(file, row),
            accepted is not None,
            accepted is not False,
            tools_of(file, row),
        )


def alpaca_prompt(file: Path | str, row: Row) -> tuple[Message, ...]:
    """Return what stands before the answer of an Alpaca-like row: system prompt, history and question.

    Raises:
        DataError: a field is missing, empty, or of the wrong type.
    """
    instruction = text_of(file, row, "instruction", required=True)
    extra = text_of(file, row, "input")
    system = text_of(file, row, "system")
    messages: list[Message] = [Message("system", system)] if system else []
    messages += _history(file, row)
    messages.append(Message("user", f"{instruction}\n{extra}" if extra else instruction))
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


def _columns(row: Row) -> tuple[str, str] | None:
    """Return which column asks and which one answers; None unless there is exactly one of each."""
    asking = [name for name in row.values if fold(name) in QUESTIONS]
    answering = [name for name in row.values if fold(name) in ANSWERS]
    if len(asking) == 2:  # ``question`` with an ``input`` beside it
        asking = [name for name in asking if fold(name) not in CONTEXTS]
    return (asking[0], answering[0]) if len(asking) == len(answering) == 1 else None


def _as_turns(file: Path | str, row: Row, name: str, role: Role) -> list[Turn]:
    """Return the messages in a column; of a text the one that it is."""
    value = row.values[name]
    if isinstance(value, str):
        return [Turn(Message(role, value), learn=role == "assistant")]
    return turns_of(file, row, name, value)


def _accepted_answers(value: JsonValue) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _one_answer(file: Path | str, row: Row, name: str) -> JsonValue:
    """Return the answer; of a list of texts the only one."""
    value = row.values[name]
    if isinstance(value, list) and _accepted_answers(value):
        if len(value) > 1:
            raise DataError("formats.several_answers", place(file, row, name), field=name, count=len(value))
        return value[0]
    return value


def _renamed(file: Path | str, row: Row, error: DataError, names: dict[str, str]) -> DataError:
    """Return an error about a field under the name that the file gives it."""
    field = str(error.params.get("field", ""))
    if field not in names:
        return error
    params = {**error.params, "field": names[field]}
    return DataError(error.key, place(file, row, names[field]), **params)

"""What columns are called: names for the question, the answer and what belongs to them, in several languages.

Names are compared folded (``fold``), so that ``Question:``, ``question`` and ``QUESTION`` are one. Not for reading
what stands in the columns (``columns``).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Final

from danlu.data.rows import JsonValue, Row, place
from danlu.errors import DataError

QUESTIONS: Final = frozenset({
    "question", "questions", "q", "query", "prompt", "ask", "input", "user", "human", "instruction", "problem",
    "request", "inquiry", "userinput", "userprompt", "userquestion", "usermessage", "userquery",
    "问题", "问", "提问", "问句", "题干", "题目", "用户", "用户问题", "用户提问", "用户输入", "指令", "提示词",
    "題目", "問題", "提問", "質問", "질문", "사용자",
    "pregunta", "frage", "domanda", "pergunta", "вопрос", "instrucción", "anweisung", "consigne",
})  # fmt: skip
ANSWERS: Final = frozenset({
    "answer", "answers", "a", "response", "responses", "reply", "completion", "output", "assistant", "bot", "gpt",
    "solution", "target", "botresponse", "modelresponse", "modeloutput", "assistantresponse", "expectedoutput",
    "expectedanswer", "correctanswer", "bestanswer", "groundtruth",
    "答案", "答", "回答", "回复", "答复", "应答", "参考答案", "标准答案", "正确答案", "标准回答", "参考回答", "输出",
    "助手", "解答", "回覆", "回應", "輸出", "答え", "応答", "답변", "답", "응답",
    "respuesta", "antwort", "réponse", "reponse", "risposta", "resposta", "ответ",
})  # fmt: skip
CONTEXTS: Final = frozenset({
    "context", "input", "passage", "上下文", "背景", "材料", "补充", "输入", "文脈", "contexto", "kontext", "contexte",
})  # fmt: skip
SYSTEMS: Final = frozenset({"system", "systemprompt", "systemmessage", "系统", "系统提示", "系统提示词", "系統提示"})
# What stands beside a text without being one: a column of these does not make a row of texts something else.
ABOUT: Final = frozenset({
    "id", "uid", "uuid", "docid", "url", "uri", "link", "title", "source", "author", "date", "time", "timestamp",
    "created", "language", "lang", "license", "category", "tag", "tags", "topic", "type", "meta", "metadata", "name",
    "filename", "file", "path", "dump", "标题", "题名", "来源", "作者", "日期", "时间", "链接", "类别", "分类",
    "标签", "语言",
})  # fmt: skip
# Fields that keep their name and meaning beside a question and an answer.
KEPT: Final = frozenset({"history", "weight", "accepted", "tools", "functions"})
# Columns whose names hold one of these, and columns that only other families read, may well be answers.
_ANSWERISH: Final = tuple(sorted(name for name in ANSWERS if len(name) > 3 or (len(name) > 1 and not name.isascii())))
_ELSEWHERE: Final = frozenset({"text", "chosen", "rejected", "messages", "conversations"})


def fold(name: str) -> str:
    """Return a column's name without case, width, white space, underscores, numbering marks and colons."""
    return re.sub(r"[\s_\-:：.*#]+", "", unicodedata.normalize("NFKC", name)).casefold()


def asking(row: Row) -> str | None:
    """Return the column that asks; None unless there is exactly one."""
    if row.values.get("instruction") is not None:
        return "instruction"
    found = _given(row, [name for name in row.values if fold(name) in QUESTIONS])
    if len(found) > 1:  # a question with an input beside it
        found = [name for name in found if fold(name) not in CONTEXTS]
    return found[0] if len(found) == 1 else None


def answering(row: Row) -> str | None:
    """Return the column that answers; None unless there is exactly one."""
    found = _given(row, [name for name in row.values if fold(name) in ANSWERS])
    return found[0] if len(found) == 1 else None


def answerish(row: Row) -> bool:
    """Say whether anything in a row looks like an answer, by the names of its columns."""
    return any(
        value is not None and (name in _ELSEWHERE or fold(name) in ANSWERS or like(name, _ANSWERISH))
        for name, value in row.values.items()
    )


def like(name: str, words: tuple[str, ...] = _ANSWERISH) -> bool:
    """Say whether a column's name holds one of some words."""
    return any(word in fold(name) for word in words)


def like_question(name: str) -> bool:
    """Say whether a column's name holds a word for a question."""
    return like(name, tuple(word for word in QUESTIONS if len(word) > 3 or (len(word) > 1 and not word.isascii())))


def moved(file: Path | str, row: Row, asks: str, answers: str | None = None) -> tuple[Row, dict[str, str]]:
    """Return a row under Alpaca's names, and what the file calls each of them.

    Raises:
        DataError: two columns would be the context of the question.
    """
    values: dict[str, JsonValue] = {"instruction": row.values[asks]}
    called = {"instruction": asks}
    if answers is not None:
        values["output"], called["output"] = row.values[answers], answers
    for name, value in row.values.items():
        if name in {asks, answers} or value in (None, ""):
            continue
        folded = fold(name)
        meaning = "input" if folded in CONTEXTS else "system" if folded in SYSTEMS else None
        if meaning is not None:
            if values.get(meaning):
                raise DataError("formats.two_columns", place(file, row, name), one=called[meaning], other=name)
            values[meaning], called[meaning] = value, name
        elif name in KEPT:
            values[name] = value
    return replace(row, values=values), called


def in_their_words(file: Path | str, row: Row, error: DataError, called: dict[str, str]) -> DataError:
    """Return an error about a field under the name that the file gives it."""
    field = str(error.params.get("field", ""))
    if called.get(field, field) == field:
        return error
    return DataError(error.key, place(file, row, called[field]), **{**error.params, "field": called[field]})


def _given(row: Row, names: list[str]) -> list[str]:
    """Return the columns that say something, where several could; tables merged from others have empty ones."""
    return [name for name in names if row.values[name] is not None] if len(names) > 1 else names

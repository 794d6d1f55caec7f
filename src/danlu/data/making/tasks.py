"""What a model is asked to write: other wordings of questions and answers, questions to decline, drafts of a passage.

The prompts are Chinese where the rows are, and English otherwise. Not for what comes back (``replies``, ``judging``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import regex

from danlu.data.checks.content import DECLINES
from danlu.data.conversations import Conversation
from danlu.data.making.passages import Passage
from danlu.models.chat_format import THINK_CLOSE
from danlu.models.messages import Message

MadeKind = Literal["paraphrase", "variation", "decline", "draft"]
# So many questions of a data set show a model what the assistant is about.
_SHOWN: Final = 8
# Asked for at once; more than that and small models begin to repeat themselves.
_AT_ONCE: Final = 5
# Of ten questions that an assistant gets one is none of its business (own rule), and three at least.
DECLINE_SHARE: Final = 0.1
LEAST_DECLINES: Final = 3
_HAN: Final = regex.compile(r"\p{Han}")
_LETTER: Final = regex.compile(r"\p{L}")
_PROMPTS: Final = {
    ("paraphrase", "en"): (
        "Write {count} different ways in which people might ask the question below. Keep what it means, and every name "
        "and number in it. Do not answer it. Write one question a line and nothing else.\n\nQuestion: {question}"
    ),
    ("paraphrase", "zh"): (
        "请把下面的问题换成 {count} 种不同的问法，就像不同的人会怎么问。意思不变，名称和数字都要保留。不要回答。"
        "每行写一个问题，不要写别的。\n\n问题：{question}"
    ),
    ("variation", "en"): (
        "Below are a question and its answer. Write the answer in {count} other ways, in the same voice and about as "
        "long. Keep every fact, name, number and address, and add none. Put a line with --- between them and write "
        "nothing else.\n\nQuestion: {question}\nAnswer: {answer}"
    ),
    ("variation", "zh"): (
        "下面是一个问题和它的回答。请用同样的语气、差不多的长度，把回答换成 {count} 种说法。"
        "事实、名称、数字和地址都要保留，也不要添加。每种说法之间用单独一行 --- 隔开，不要写别的。"
        "\n\n问题：{question}\n回答：{answer}"
    ),
    ("decline", "en"): (
        "An assistant answers questions such as these:\n{questions}\n\nWrite {count} questions that people may ask it "
        "and that it cannot answer: about other subjects, about people's private matters, about the future. Write one "
        "question a line and nothing else."
    ),
    ("decline", "zh"): (
        "有一个助手回答这样的问题：\n{questions}\n\n请写 {count} 个别人可能会问、而它回答不了的问题："
        "别的领域、他人的隐私、将来的事。每行写一个问题，不要写别的。"
    ),
    ("draft", "en"): (
        "Write {count} questions that the text below answers, each with its answer. Use only what the text says, and "
        "answer in whole sentences. Write them like this and write nothing else:\nQ: the question\nA: the answer\n\n"
        "{heading}{passage}"
    ),
    ("draft", "zh"): (
        "请根据下面的文字写 {count} 个问题，每个问题附上回答。只用文中的内容，用完整的句子回答。"
        "按这样的格式写，不要写别的：\n"
        "问：问题\n答：回答\n\n{heading}{passage}"
    ),
}


@dataclass(frozen=True)
class Task:
    """Something that a model is to write.

    Attributes:
        kind: what it is.
        of: the row or the passage that it is made of, from 1; 0 for the data set as a whole.
        wanted: how many are wanted.
        messages: what the model is asked.
        question: the question that it is made of; empty for a decline and a draft.
        answer: the answer that it is made of, or that every decline gets; empty for a draft.
        system: the system prompt of the row.
        passage: the passage of a draft.
    """

    kind: MadeKind
    of: int
    wanted: int
    messages: tuple[Message, ...]
    question: str = ""
    answer: str = ""
    system: str = ""
    passage: Passage | None = None

    @property
    def room(self) -> int:
        """Most tokens that a reply needs, counted generously: a character is at most one in the vocabularies in use."""
        length = {"paraphrase": len(self.question), "variation": len(self.answer)}.get(self.kind, 160)
        return min(2048, 64 + self.wanted * (2 * length + 32))


@dataclass(frozen=True)
class Wanted:
    """How many of each kind are wanted.

    Attributes:
        paraphrases: of each question.
        variations: of each answer.
        declines: in all.
    """

    paraphrases: int
    variations: int
    declines: int


@dataclass
class RowTasks:
    """What is to be written for a data set.

    Attributes:
        tasks: the tasks.
        several_turns: rows that are left alone because they have more than one turn.
        with_tools: rows that are left alone because tools are called in them.
        reasoned: rows that are left alone because their answers carry reasoning, which would be lost.
        made: rows that are left alone because a model has made them.
    """

    tasks: list[Task] = field(default_factory=list)
    several_turns: int = 0
    with_tools: int = 0
    reasoned: int = 0
    made: int = 0


def language_of(text: str) -> Literal["zh", "en"]:
    """Return the language of a text: Chinese where a third of its letters are Chinese characters."""
    letters = len(_LETTER.findall(text))
    return "zh" if letters and len(_HAN.findall(text)) * 3 >= letters else "en"


def usual_decline(conversations: Sequence[Conversation]) -> str | None:
    """Return the answer with which these rows most often decline; None where none of them does."""
    found = Counter(item.answer.strip() for item in conversations if DECLINES.search(item.answer))
    return found.most_common(1)[0][0] if found else None


def tasks_of_rows(conversations: Sequence[Conversation], wanted: Wanted, decline: str | None) -> RowTasks:
    """Return what is to be written for rows: other questions, other answers, and questions to be declined.

    Args:
        conversations: the rows; those with more than one turn, with tools or with reasoning, and those that a model
            has made, are left alone and counted.
        wanted: how many.
        decline: the answer to questions that are declined; None asks for none of them.
    """
    made = RowTasks()
    plain: list[Conversation] = []
    for item in conversations:
        if item.tools or any(message.role == "tool" or message.tool_calls for message in item.messages):
            made.with_tools += 1
        elif item.pseudo:
            made.made += 1
        elif any(message.reasoning for message in item.messages) or THINK_CLOSE in item.answer:
            made.reasoned += 1
        elif sum(message.role == "user" for message in item.messages) != 1:
            made.several_turns += 1
        else:
            plain.append(item)
    for item in plain:
        question, answer = item.question, item.answer
        language = language_of(question + answer)
        counts: tuple[tuple[MadeKind, int], ...] = (
            ("paraphrase", wanted.paraphrases), ("variation", wanted.variations),
        )  # fmt: skip
        for kind, count in counts:
            if count:
                messages = _asked(kind, language, count=count, question=question, answer=answer)
                made.tasks.append(Task(kind, item.row, count, messages, question, answer, _system(item)))
    if decline is not None and plain:
        made.tasks += _declines(plain, wanted.declines, decline)
    return made


def tasks_of_passages(passages: Sequence[Passage], wanted: int) -> list[Task]:
    """Return what is to be written for passages of documents: ``wanted`` questions with answers of each."""
    tasks = []
    for passage in passages:
        heading = " / ".join(passage.headings)
        messages = _asked(
            "draft", language_of(passage.text), count=wanted, passage=passage.text,
            heading=heading + "\n\n" if heading else "",
        )  # fmt: skip
        tasks.append(Task("draft", passage.number, wanted, messages, passage=passage))
    return tasks


def _declines(conversations: Sequence[Conversation], count: int, answer: str) -> list[Task]:
    """Return tasks of a few questions each, every one of them shown other questions of the data set."""
    tasks = []
    step = max(1, len(conversations) // _SHOWN)
    for start in range(0, count, _AT_ONCE):
        number = start // _AT_ONCE
        shown = [
            conversations[(number + at * step) % len(conversations)] for at in range(min(_SHOWN, len(conversations)))
        ]
        questions = "\n".join(f"- {item.question}" for item in shown)
        few = min(_AT_ONCE, count - start)
        messages = _asked("decline", language_of(questions), count=few, questions=questions)
        systems = Counter(_system(item) for item in conversations)
        tasks.append(Task("decline", 0, few, messages, answer=answer, system=systems.most_common(1)[0][0]))
    return tasks


def _asked(kind: MadeKind, language: str, **params: object) -> tuple[Message, ...]:
    return (Message("user", _PROMPTS[kind, language].format(**params)),)


def _system(item: Conversation) -> str:
    return item.messages[0].content if item.messages[0].role == "system" else ""

"""A conversation as it is learned. Not for how rows become one (``data.formats``), nor for token ids (``encode``)."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.models.chat_format import THINK_CLOSE
from danlu.models.messages import Message


@dataclass(frozen=True)
class Conversation:
    """What is said, and which turns are learned.

    Attributes:
        messages: the turns in order; a system message, if any, comes first.
        learn: for each message whether the model is to learn to write it.
        row: number of the row it came from, from 1.
        line: line of the file that row begins on, from 1.
        weight: how much its answers count beside those of other rows, above 0 and at most 1.
        pseudo: its answer was written by a model; it is never measured on.
        accepted: it is learned; only a pseudo label may not be.
        tools: the tools that the assistant may call, a JSON list as text (OpenAI's ``tools``); empty for none.
    """

    messages: tuple[Message, ...]
    learn: tuple[bool, ...]
    row: int
    line: int
    weight: float = 1.0
    pseudo: bool = False
    accepted: bool = True
    tools: str = ""

    @property
    def reasoned(self) -> bool:
        """Whether an answer that is learned carries its reasoning in a think block."""
        pairs = zip(self.messages, self.learn, strict=True)
        return any(message.reasoning or THINK_CLOSE in message.content for message, learned in pairs if learned)

    @property
    def question(self) -> str:
        """The last thing the user says."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1].content

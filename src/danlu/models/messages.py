"""A message of a conversation: the one type that data, training, evaluation and serving share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that an assistant asks for.

    Attributes:
        name: name of the tool.
        arguments: its arguments, a JSON object as text.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: who speaks; ``tool`` is what a tool answered.
        content: the text, without any token of a chat template.
        reasoning: what an assistant thought before it said that, without the marks around it; empty for none.
        tool_calls: the tools that an assistant calls with this turn.
    """

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

"""A message of a conversation: the one type that data, training, evaluation and serving share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: who speaks.
        content: the text, without any token of a chat template.
    """

    role: Role
    content: str

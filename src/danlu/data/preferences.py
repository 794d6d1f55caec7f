"""Judged answers. Not for how rows become them (``formats.judged``), nor for token ids (``judged``)."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.data.conversations import Conversation


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

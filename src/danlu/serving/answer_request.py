"""What callers of ``/answer`` send: the old script's call, and a little more. Not for OpenAI's routes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from danlu.models.messages import Message
from danlu.serving.served import SamplingOverrides


class AnswerRequest(BaseModel):
    """``GET`` or ``POST /answer``: the old script's call, and a little more.

    Query values arrive as text and are converted. ``max_length`` and ``repetition_penalty`` are honoured.
    ``min_length``, ``no_repeat_ngram_size``, ``num_beams``, ``early_stopping`` and any other parameter of the old
    script are accepted and not used: beam search and forced lengths make chat answers worse.
    """

    model_config = ConfigDict(extra="ignore")
    OLD: ClassVar[tuple[str, ...]] = ("min_length", "no_repeat_ngram_size", "num_beams", "early_stopping")

    prompt: str = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_length: int | None = Field(None, ge=1, description="old name of max_tokens")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    seed: int | None = Field(None, ge=0, lt=2**32)
    system: str | None = Field(None, description="system prompt of this call; the assistant's own when absent")
    assistant: str | None = Field(None, description="who answers; the default assistant when absent")
    stream: bool = False

    def messages(self) -> tuple[Message, ...]:
        """Return the conversation: one question."""
        question = Message("user", self.prompt)
        return (question,) if self.system is None else (Message("system", self.system), question)

    def overrides(self) -> SamplingOverrides:
        """Return what the caller asked for."""
        return SamplingOverrides(
            max_tokens=self.max_tokens or self.max_length,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
        )

"""What is kept of each request to a gateway: who asked, how it ended, tokens and times; texts only where switched on.

One record a request, made when it is over, also for callers who left and for those who were turned away. Metrics, the
log of answers and the use of API keys are made from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from danlu.errors import DanluError
from danlu.serving.engine import Finish, FinishReason, Origin, TextPiece

Outcome = FinishReason | Literal["left", "refused", "failed"]


@dataclass(frozen=True)
class AnswerRecord:
    """The account of one request; times in seconds.

    Attributes:
        origin: who asked.
        model_id: the version that was to answer.
        engine: kind of its engine.
        outcome: a finish reason; ``left`` (the caller went away), ``refused`` (before the engine was asked) or
            ``failed``.
        error: key of the error; None without one.
        prompt_tokens: tokens of the prompt, if the engine was asked.
        completion_tokens: tokens generated until the end, whatever it was.
        cached_tokens: prompt tokens that did not have to be read.
        queued_seconds: until a slot was free; None when none was.
        first_token_seconds: from the slot to the first token; None when none came.
        seconds: from the arrival to the end.
        texts: question and answer, where these are kept.
    """

    origin: Origin
    model_id: str
    engine: str
    outcome: Outcome
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    queued_seconds: float | None
    first_token_seconds: float | None
    seconds: float
    texts: tuple[str, str] | None = None


@dataclass(frozen=True)
class Books:
    """Where the accounts of requests go.

    Attributes:
        enter: called with each account when its request is over.
        keep_texts: put question and answer into it.
    """

    enter: Callable[[AnswerRecord], None]
    keep_texts: bool = False


class Account:
    """The account of a request that runs.

    Args:
        origin: who asks.
        model_id: the version asked.
        engine: kind of its engine.
        question: what was asked, where it is to be kept.
    """

    def __init__(self, origin: Origin, model_id: str, engine: str, question: str | None = None) -> None:
        self._question = question
        self._answer = ""
        self._origin, self._model_id, self._engine = origin, model_id, engine
        self._begun = time.monotonic()
        self._slot: float | None = None
        self._first: float | None = None
        self._outcome: Outcome = "left"
        self._error: str | None = None
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0

    def started(self, prompt_tokens: int) -> None:
        """Note that the request has a slot."""
        self._slot = time.monotonic()
        self._prompt_tokens = prompt_tokens

    def said(self, piece: TextPiece) -> None:
        """Note what is said, where it is to be kept."""
        if self._question is not None:
            self._answer += piece.content

    def generated(self, tokens: int) -> None:
        """Note tokens that came."""
        if tokens and self._first is None:
            self._first = time.monotonic()
        self._completion_tokens += tokens

    def finished(self, finish: Finish) -> None:
        """Note the end of an answer that is whole."""
        self._outcome = finish.reason
        self._prompt_tokens, self._completion_tokens = finish.prompt_tokens, finish.completion_tokens
        self._cached_tokens = finish.cached_tokens

    def failed(self, error: DanluError) -> None:
        """Note why there was no answer, or no whole one."""
        self._outcome = "refused" if self._slot is None else "failed"
        self._error = error.key

    def record(self) -> AnswerRecord:
        """Return the account as it stands."""
        slot = self._slot
        return AnswerRecord(
            origin=self._origin,
            model_id=self._model_id,
            engine=self._engine,
            outcome=self._outcome,
            error=self._error,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            queued_seconds=None if slot is None else slot - self._begun,
            first_token_seconds=None if slot is None or self._first is None else self._first - slot,
            seconds=time.monotonic() - self._begun,
            texts=None if self._question is None else (self._question, self._answer),
        )

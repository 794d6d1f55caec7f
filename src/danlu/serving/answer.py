"""Builds one answer from an engine's raw pieces: turn ends, think blocks, stop strings, counts and times."""

from __future__ import annotations

import time
from collections.abc import Sequence

from danlu.serving.engine import Call, EngineFinish, EnginePiece, Finish, TextPiece, TokenLogprob
from danlu.serving.stops import StopScanner
from danlu.serving.thinking import ThinkingSplitter
from danlu.serving.tool_calls import ToolCallScanner


class AnswerBuilder:
    """The state of one answer; see ``Gateway`` for its use.

    Args:
        prompt_tokens: tokens of the prompt, as the gateway rendered it.
        thinking_opened: the prompt ends inside a think block.
        turn_ends: texts that end the turn wherever they stand.
        stops: the caller's stop strings, searched in the visible content only.
        calls: finds calls of tools; None where none were declared.
        given: the beginning of the answer, which stands in the prompt already.
    """

    def __init__(
        self,
        *,
        prompt_tokens: int,
        thinking_opened: bool,
        turn_ends: Sequence[str],
        stops: Sequence[str],
        calls: ToolCallScanner | None = None,
        given: str = "",
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._turn = StopScanner(turn_ends)
        self._splitter = ThinkingSplitter(opened=thinking_opened)
        self._stops = StopScanner(stops)
        self._calls = calls
        self._called = False
        self._given = given
        self._logprobs: list[TokenLogprob] = []
        self._tokens = 0
        self._held_tokens = 0
        self._begun = time.monotonic()
        self._first: float | None = None
        self._thinking_since: float | None = None
        self._thinking_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Return whether a stop string, or the only call that was wanted, has ended the answer."""
        over = self._turn.hit is not None or self._stops.hit is not None
        return over or (self._calls is not None and self._calls.ended)

    def add(self, piece: EnginePiece) -> TextPiece | None:
        """Take one raw piece; return what it adds to the answer, if anything can be told yet."""
        self._tokens += piece.tokens
        self._held_tokens += piece.tokens
        if self._first is None and piece.tokens:
            self._first = time.monotonic()
        given, self._given = self._given, ""
        self._logprobs += piece.logprobs
        content, reasoning = self._splitter.feed(given + self._turn.feed(piece.text))
        if self._splitter.thinking or (reasoning and not content):
            self._logprobs.clear()  # only what is said is accounted for
        text, calls = self._calls.feed(content) if self._calls is not None else (content, ())
        return self._piece(self._stops.feed(text), reasoning + piece.reasoning, calls + piece.calls)

    def close(self) -> TextPiece | None:
        """Return the text that was held back."""
        content, reasoning = self._splitter.feed(self._turn.close())
        rest, thought = self._splitter.close()
        text = content + rest
        calls: tuple[Call, ...] = ()
        if self._calls is not None:
            before, early = self._calls.feed(text)
            text, late = self._calls.close()
            text, calls = before + text, early + late
        text = self._stops.feed(text) + self._stops.close()
        return self._piece(text, reasoning + thought, calls)

    def finish(self, engine: EngineFinish | None) -> Finish:
        """Return the account of the whole answer; ``engine`` is None when a stop string ended it."""
        now = time.monotonic()
        prompt = engine.prompt_tokens if engine is not None else None
        completion = engine.completion_tokens if engine is not None else None
        reason = engine.reason if engine is not None and not self.ended else "stop"
        return Finish(
            reason="tool_calls" if self._called and reason != "length" else reason,
            prompt_tokens=prompt if prompt is not None else self._prompt_tokens,
            completion_tokens=completion if completion is not None else self._tokens,
            cached_tokens=(engine.cached_tokens or 0) if engine is not None else 0,
            seconds=now - self._begun,
            first_token_seconds=self._first - self._begun if self._first is not None else None,
            reasoning_seconds=self._thinking_seconds
            if self._thinking_seconds is not None or self._thinking_since is None
            else now - self._thinking_since,
        )

    def _piece(self, content: str, reasoning: str, calls: tuple[Call, ...]) -> TextPiece | None:
        now = time.monotonic()
        if reasoning and self._thinking_since is None:
            self._thinking_since = self._first if self._first is not None else now
        if content and self._thinking_since is not None and self._thinking_seconds is None:
            self._thinking_seconds = now - self._thinking_since
        if not content and not reasoning and not calls:
            return None
        self._called = self._called or bool(calls)
        logprobs: tuple[TokenLogprob, ...] = ()
        if content:
            logprobs = tuple(self._logprobs)
            self._logprobs.clear()
        tokens, self._held_tokens = self._held_tokens, 0
        return TextPiece(content, reasoning, tokens, logprobs, calls)

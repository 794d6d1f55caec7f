"""How answers are written: OpenAI's chat completions and completions, and ``/answer``. See ``answering.Format``."""

from __future__ import annotations

from collections.abc import Sequence

from danlu.errors import DanluError
from danlu.serving import openai_wire as wire
from danlu.serving.answering import Whole
from danlu.serving.engine import Finish, TextPiece
from danlu.serving.openai_wire import Json


class ChatAnswers:
    """``chat.completion`` and its chunks.

    Args:
        model: the name that was asked.
        with_usage: end a stream with token counts.
        top_logprobs: how many were asked for; None without log probabilities.
    """

    def __init__(self, model: str, with_usage: bool, top_logprobs: int | None) -> None:
        self._head = (wire.now(), model)
        self._id = wire.new_id("chatcmpl")
        self._with_usage = with_usage
        self._top = top_logprobs
        self._calls: dict[int, int] = {}

    def begin(self, choice: int) -> list[bytes]:
        """Return the chunk that names the role."""
        return [self._chunk(choice, {"role": "assistant", "content": ""})]

    def piece(self, choice: int, piece: TextPiece) -> list[bytes]:
        """Return a chunk of text, of thoughts or of calls."""
        delta: Json = {}
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.content:
            delta["content"] = piece.content
        if piece.calls:
            first = self._calls.get(choice, 0)
            self._calls[choice] = first + len(piece.calls)
            delta["tool_calls"] = [wire.call_object(call, first + i) for i, call in enumerate(piece.calls)]
        logprobs = None
        if self._top is not None and piece.logprobs:
            logprobs = wire.chat_logprobs(piece.logprobs, self._top)
        return [self._chunk(choice, delta, logprobs=logprobs)]

    def end(self, choice: int, finish: Finish, content: str) -> list[bytes]:
        """Return the chunk with the reason of the end."""
        return [self._chunk(choice, {}, finish.reason)]

    def close(self, finishes: Sequence[Finish]) -> list[bytes]:
        """Return the token counts, if asked for, and the end."""
        tail = [wire.DONE]
        if self._with_usage:
            counts = {"usage": wire.usage(finishes)}
            tail.insert(0, wire.sse(wire.envelope(self._id, "chat.completion.chunk", *self._head, []) | counts))
        return tail

    def error(self, error: DanluError) -> bytes:
        """Return an error event."""
        return wire.sse(wire.error_body(error))

    def whole(self, made: Sequence[Whole]) -> Json:
        """Return a ``chat.completion``."""
        choices = [
            {
                "index": index,
                "message": wire.chat_message(one.content, one.reasoning, one.calls),
                "logprobs": None if self._top is None else wire.chat_logprobs(one.logprobs, self._top),
                "finish_reason": one.ended.reason,
            }
            for index, one in enumerate(made)
        ]
        counts = {"usage": wire.usage([one.ended for one in made])}
        return wire.envelope(self._id, "chat.completion", *self._head, choices) | counts

    def _chunk(self, choice: int, delta: Json, reason: str | None = None, *, logprobs: Json | None = None) -> bytes:
        one = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return wire.sse(wire.envelope(self._id, "chat.completion.chunk", *self._head, [one]))


class TextAnswers:
    """``text_completion`` and its chunks.

    Args:
        model: the name that was asked.
        with_usage: end a stream with token counts.
        top_logprobs: how many were asked for; None without log probabilities.
        prompts: how many prompts there were.
        echoed: for each answer the prompt that stands before it; empty for none.
    """

    def __init__(
        self, model: str, with_usage: bool, top_logprobs: int | None, prompts: int, echoed: Sequence[str]
    ) -> None:
        self._head = (wire.now(), model)
        self._id = wire.new_id("cmpl")
        self._with_usage = with_usage
        self._top = top_logprobs
        self._prompts = prompts
        self._echoed = echoed
        self._length: dict[int, int] = {}

    def begin(self, choice: int) -> list[bytes]:
        """Return the prompt, if it is to be echoed."""
        return [self._chunk(choice, self._echoed[choice])] if self._echoed else []

    def piece(self, choice: int, piece: TextPiece) -> list[bytes]:
        """Return a chunk of text; thoughts are not part of it."""
        if not piece.content:
            return []
        logprobs = None
        offset = self._length.get(choice, len(self._echoed[choice]) if self._echoed else 0)
        self._length[choice] = offset + len(piece.content)
        if self._top is not None and piece.logprobs:
            logprobs = wire.text_logprobs(piece.logprobs, self._top, offset)
        return [self._chunk(choice, piece.content, logprobs=logprobs)]

    def end(self, choice: int, finish: Finish, content: str) -> list[bytes]:
        """Return the chunk with the reason of the end."""
        return [self._chunk(choice, "", finish.reason)]

    def close(self, finishes: Sequence[Finish]) -> list[bytes]:
        """Return the token counts, if asked for, and the end."""
        tail = [wire.DONE]
        if self._with_usage:
            counts = {"usage": wire.usage(finishes, prompts=self._prompts)}
            tail.insert(0, wire.sse(wire.envelope(self._id, "text_completion", *self._head, []) | counts))
        return tail

    def error(self, error: DanluError) -> bytes:
        """Return an error event."""
        return wire.sse(wire.error_body(error))

    def whole(self, made: Sequence[Whole]) -> Json:
        """Return a ``text_completion``."""
        choices = []
        for index, one in enumerate(made):
            before = self._echoed[index] if self._echoed else ""
            logprobs = None if self._top is None else wire.text_logprobs(one.logprobs, self._top, len(before))
            reason = one.ended.reason
            choices.append(
                {"index": index, "text": before + one.content, "logprobs": logprobs, "finish_reason": reason}
            )
        counts = {"usage": wire.usage([one.ended for one in made], prompts=self._prompts)}
        return wire.envelope(self._id, "text_completion", *self._head, choices) | counts

    def _chunk(self, choice: int, text: str, reason: str | None = None, *, logprobs: Json | None = None) -> bytes:
        one = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return wire.sse(wire.envelope(self._id, "text_completion", *self._head, [one]))


class PlainAnswers:
    """``/answer``: the text and who wrote it."""

    def __init__(self, model: str) -> None:
        self._model = model

    def begin(self, choice: int) -> list[bytes]:
        """Return nothing."""
        return []

    def piece(self, choice: int, piece: TextPiece) -> list[bytes]:
        """Return a piece of text; thoughts are not part of it."""
        return [wire.sse({"text": piece.content})] if piece.content else []

    def end(self, choice: int, finish: Finish, content: str) -> list[bytes]:
        """Return the whole answer once more."""
        return [wire.sse(self._answer(content, finish))]

    def close(self, finishes: Sequence[Finish]) -> list[bytes]:
        """Return the end."""
        return [wire.DONE]

    def error(self, error: DanluError) -> bytes:
        """Return an error event."""
        return wire.sse(wire.error_body(error))

    def whole(self, made: Sequence[Whole]) -> Json:
        """Return the answer."""
        return self._answer(made[0].content, made[0].ended)

    def _answer(self, content: str, finish: Finish) -> Json:
        return {"generated_text": content, "model": self._model, "finish_reason": finish.reason}

"""Messages to text, by the tokenizer's own chat template, with nothing lost on the way.

A template is a program of its own: it may know no tools, forget what a tool answered, or refuse an order of turns. What
it writes is found out by rendering marks in conversations of the same shape, once for each shape; what would be lost
is refused by name, with the turn. Not for token ids (``chat_format``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import jinja2

from danlu.errors import ModelError
from danlu.models.messages import Message, ToolCall
from danlu.models.versions import Thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
_EXCERPT: Final = 60
# A template is a program of its own and may fail in any of these ways.
_FAILURES: Final = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
_ASK: Final = Message("user", "?")

Shape = tuple[tuple[str, bool, bool, int], ...]


@dataclass(frozen=True)
class _Forms:
    """How a template wants what has more than one form.

    Attributes:
        reasoning: it reads a field ``reasoning_content``; else reasoning is written into the content.
        arguments: it takes the arguments of a call as an object or as JSON text.
        silent: what it takes as the content of a turn that only calls: nothing, or an empty text.
    """

    reasoning: bool
    arguments: Literal["object", "text"]
    silent: Literal["none", "empty"]


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template under a thinking policy.

    Attributes:
        tokenizer: a transformers tokenizer with a chat template.
        thinking: with ``off`` the template is told ``enable_thinking=False``.
    """

    tokenizer: PreTrainedTokenizerBase
    thinking: Thinking = "auto"

    @cached_property
    def source(self) -> str:
        """The template's own text; of several with names the one for plain conversations."""
        found = self.tokenizer.chat_template
        return str(found.get("default", "")) if isinstance(found, dict) else str(found or "")

    @cached_property
    def can_think(self) -> bool:
        """Say whether the template knows think blocks at all."""
        return THINK_OPEN in self.source or THINK_CLOSE in self.source

    def render(self, messages: Sequence[Message], tools: str = "", *, ask: bool) -> str:
        """Return a conversation as text.

        Args:
            messages: what was said, a system prompt first, if any.
            tools: the tools that may be called, a JSON list as text; empty for none.
            ask: write what stands before the next answer, too.

        Raises:
            ModelError: the template refuses the conversation; the message names the turn.
        """
        try:
            return self._render(messages, tools, ask=ask)
        except _FAILURES as error:
            raise self._refusal(messages, tools, error) from error

    def require_written(self, messages: Sequence[Message], tools: str = "") -> None:
        """Check that the template writes every part of a conversation of this shape, in order.

        Raises:
            ModelError: it would leave out tools, a system prompt, a turn, a call or what a tool answered, would put
                turns into another order, or refuses the conversation; the message names the turn.
        """
        shape = tuple((m.role, bool(m.content.strip()), bool(m.reasoning), len(m.tool_calls)) for m in messages)
        key = (shape, bool(tools))
        if key not in self._known_shapes:
            self._known_shapes[key] = self._problem_of(shape, tools=bool(tools))
        problem = self._known_shapes[key]
        if problem is None:
            return
        if isinstance(problem, _Refused):
            self.render(messages, tools, ask=messages[-1].role != "assistant")  # says why, if it refuses these too
            return
        raise self._lost(problem, messages)

    @cached_property
    def _known_shapes(self) -> dict[tuple[Shape, bool], _Lost | _Refused | None]:
        return {}

    def _render(self, messages: Sequence[Message], tools: str, *, ask: bool) -> str:
        options: dict[str, Any] = {"enable_thinking": False} if self.thinking == "off" else {}
        if tools:
            options["tools"] = json.loads(tools)
        text = self.tokenizer.apply_chat_template(
            self._as_dicts(messages), tokenize=False, add_generation_prompt=ask, **options
        )
        assert isinstance(text, str)
        return text

    def _as_dicts(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        if not any(message.tool_calls or message.reasoning or message.role == "tool" for message in messages):
            return [{"role": message.role, "content": message.content} for message in messages]
        return _as_dicts(messages, self._forms)

    @cached_property
    def _forms(self) -> _Forms:
        """How this template wants reasoning and calls: the first forms in which all that was marked is written."""
        plain = _Forms(reasoning=False, arguments="object", silent="empty")
        thought = Message("assistant", "a", reasoning=_mark(0))
        reasoning = self._writes((_ASK, thought), replace(plain, reasoning=True), _mark(0))
        call = Message("assistant", "", tool_calls=(ToolCall(_mark(0), json.dumps({"a": _mark(1)})),))
        trials: tuple[tuple[Literal["object", "text"], Literal["none", "empty"]], ...] = (
            ("object", "empty"), ("object", "none"), ("text", "empty"), ("text", "none"),
        )  # fmt: skip
        for arguments, silent in trials:
            forms = _Forms(reasoning, arguments, silent)
            if self._writes((_ASK, call), forms, _mark(0), _mark(1)):
                return forms
        return replace(plain, reasoning=reasoning)

    def _writes(self, messages: Sequence[Message], forms: _Forms, *marks: str) -> bool:
        try:
            text = self.tokenizer.apply_chat_template(_as_dicts(messages, forms), tokenize=False)
        except _FAILURES:
            return False
        return all(mark in str(text) for mark in marks)

    def _problem_of(self, shape: Shape, *, tools: bool) -> _Lost | _Refused | None:
        """Render marks in the shape of a conversation and look for them."""
        numbers = count()
        marked: list[Message] = []
        contents: list[str] = []
        calls: list[list[str]] = []
        for role, said, thought, called in shape:
            contents.append(_mark(next(numbers)) if said else "")
            pairs = [(_mark(next(numbers)), _mark(next(numbers))) for _ in range(called)]
            calls.append([mark for pair in pairs for mark in pair])
            made = tuple(ToolCall(name, json.dumps({"a": value})) for name, value in pairs)
            marked.append(Message(role, contents[-1], _mark(next(numbers)) if thought else "", made))  # type: ignore[arg-type]
        tool = _mark(next(numbers))
        declared = json.dumps([
            {"type": "function", "function": {
                "name": tool, "description": tool, "parameters": {"type": "object", "properties": {}, "required": []},
            }},
        ])  # fmt: skip
        try:
            text = self._render(marked, declared if tools else "", ask=shape[-1][0] != "assistant")
        except _FAILURES:
            return _Refused()
        if tools and tool not in text:
            return _Lost("templates.no_tools", 0)
        for turn, (role, *_) in enumerate(shape):
            if contents[turn] and contents[turn] not in text:
                keys = {"system": "templates.no_system", "tool": "templates.no_results"}
                return _Lost(keys.get(role, "templates.turn_lost"), turn)
            if any(mark not in text for mark in calls[turn]):
                return _Lost("templates.no_calls", turn)
        places = [(turn, text.index(mark)) for turn, mark in enumerate(contents) if mark]
        spoken = [(turn, place) for turn, place in places if shape[turn][0] != "system"]
        for (_, before), (turn, place) in pairwise(spoken):
            if place < before:
                return _Lost("templates.reordered", turn)
        return None

    def _lost(self, lost: _Lost, messages: Sequence[Message]) -> ModelError:
        message = messages[lost.turn]
        name = message.tool_calls[0].name if message.tool_calls else ""
        return ModelError(lost.key, turn=lost.turn + 1, role=message.role, name=name, excerpt=excerpt(message))

    def _refusal(self, messages: Sequence[Message], tools: str, error: Exception) -> ModelError:
        """Return what the template refuses: the first turn at which it does."""
        if not messages or not self._accepts((_ASK,), ""):
            return ModelError("templates.broken", reason=str(error))
        roles = " → ".join(message.role for message in messages)
        begins = messages[0].role == "system" if messages else False
        ends = range(2 if begins else 1, len(messages))
        end = next((end for end in ends if not self._accepts(messages[:end], tools)), len(messages))
        if begins and end == 2 and self._accepts(messages[1:end], tools):
            return ModelError("templates.system_refused", reason=str(error), excerpt=excerpt(messages[0]))
        last = messages[end - 1]
        return ModelError(
            "templates.refused", turn=end, role=last.role, excerpt=excerpt(last), roles=roles, reason=str(error)
        )

    def _accepts(self, messages: Sequence[Message], tools: str) -> bool:
        try:
            self._render(messages, tools, ask=messages[-1].role != "assistant")
        except _FAILURES:
            return False
        return True


@dataclass(frozen=True)
class _Lost:
    """A part of conversations of a shape that the template does not write.

    Attributes:
        key: the error.
        turn: place of the message, from 0.
    """

    key: str
    turn: int


@dataclass(frozen=True)
class _Refused:
    """The template refuses conversations of a shape."""


def excerpt(message: Message) -> str:
    """Return the beginning of what a message says, on one line."""
    text = re.sub(r"\s+", " ", message.content or message.reasoning or " ".join(c.name for c in message.tool_calls))
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def with_thoughts(message: Message) -> str:
    """Return what a message says behind what was thought before, in the form that Qwen3 and the R1 distils write it."""
    if not message.reasoning:
        return message.content
    return f"{THINK_OPEN}\n{message.reasoning}\n{THINK_CLOSE}\n\n{message.content}"


def without_thoughts(message: Message) -> Message:
    """Return a message as it was said, without what was thought before."""
    if message.role != "assistant" or not (message.reasoning or THINK_CLOSE in message.content):
        return message
    return replace(message, content=message.content.split(THINK_CLOSE)[-1].lstrip("\n"), reasoning="")


def _as_dicts(messages: Sequence[Message], forms: _Forms) -> list[dict[str, Any]]:
    """Return messages as templates read them: OpenAI's form, with ids that tie answers of tools to their calls.

    Some templates (Mistral's) demand ids of nine letters and digits.
    """
    made: list[dict[str, Any]] = []
    numbers = count(1)
    waiting: list[tuple[str, str]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning and forms.reasoning:
            one["reasoning_content"] = message.reasoning
        elif message.reasoning:
            one["content"] = with_thoughts(message)
        if message.role == "tool" and waiting:
            one["tool_call_id"], one["name"] = waiting.pop(0)
        if message.tool_calls:
            waiting = [(f"call{next(numbers):05d}", call.name) for call in message.tool_calls]
            if not one["content"] and forms.silent == "none":
                del one["content"]
            one["tool_calls"] = [
                {"id": key, "type": "function", "function": {"name": call.name, "arguments": _arguments(call, forms)}}
                for call, (key, _) in zip(message.tool_calls, waiting, strict=True)
            ]
        made.append(one)
    return made


def _arguments(call: ToolCall, forms: _Forms) -> Any:
    return call.arguments if forms.arguments == "text" else json.loads(call.arguments)


def _mark(number: int) -> str:
    """Return a text that no template has, trims or escapes."""
    return f"xDanlu{number}x"

"""Anthropic's ``/v1/messages``: what callers send, and how answers are written. See ``answering.Format``.

Source of names and shapes: Anthropic's public API reference (messages, streaming, errors). Images, documents, cache
marks and tools of Anthropic's own are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from danlu.accounts.errors import NoKeyError, QuotaError
from danlu.errors import BusyError, DanluError
from danlu.models.messages import Message, ToolCall
from danlu.serving import openai_wire as wire
from danlu.serving.answering import Whole
from danlu.serving.engine import Call, Finish, Form, TextPiece
from danlu.serving.openai_requests import WireError
from danlu.serving.openai_wire import Json
from danlu.serving.served import SamplingOverrides

_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ACCEPTED: Final = frozenset({"metadata", "service_tier"})


class TextBlock(BaseModel):
    """A text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(BaseModel):
    """What was thought before an earlier answer; not used."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(BaseModel):
    """A call that an assistant made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(BaseModel):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool = False


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class Turn(BaseModel):
    """A turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str | list[Block]

    def messages(self) -> list[Message]:
        """Return it as the program's own type: answers of tools first, then what is said."""
        if isinstance(self.content, str):
            return [Message(self.role, self.content)]
        results = [
            Message("tool", _text(block.content)) for block in self.content if isinstance(block, ToolResultBlock)
        ]
        text = "".join(block.text for block in self.content if isinstance(block, TextBlock))
        calls = tuple(
            ToolCall(block.name, json.dumps(block.input, ensure_ascii=False))
            for block in self.content
            if isinstance(block, ToolUseBlock)
        )
        said = [Message(self.role, text, tool_calls=calls)] if text or calls or not results else []
        return results + said


class MessageTool(BaseModel):
    """A tool that may be called."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["custom"] = "custom"
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    input_schema: dict[str, Any]


class ToolChoice(BaseModel):
    """Whether tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class MessagesRequest(BaseModel):
    """``POST /v1/messages``."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    messages: list[Turn] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    system: str | list[TextBlock] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)] = []
    stream: bool = False
    tools: list[MessageTool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice | None = None

    @model_validator(mode="after")
    def _name_what_is_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _ACCEPTED and value != {"type": "disabled"}:
                raise WireError("serving.unsupported_field", param=name)
        choice, names = self.tool_choice, {tool.name for tool in self.tools or ()}
        if choice is not None and choice.type == "tool" and choice.name not in names:
            raise WireError("serving.unknown_tool", param="tool_choice", name=choice.name or "")
        if choice is not None and choice.type == "any" and not names:
            raise WireError("serving.needs_field", param="tool_choice", other="tools")
        return self

    def conversation(self) -> tuple[Message, ...]:
        """Return the conversation, with the system prompt first."""
        made = [] if self.system is None else [Message("system", _text(self.system))]
        for turn in self.messages:
            made += turn.messages()
        return tuple(made)

    def overrides(self) -> SamplingOverrides:
        """Return what the caller asked for."""
        return SamplingOverrides(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop_sequences),
        )

    def form(self) -> Form:
        """Return what the answer has to look like."""
        choice = self.tool_choice or ToolChoice(type="auto")
        tools = [] if choice.type == "none" else list(self.tools or ())
        must: tuple[str, ...] = ()
        if choice.type == "any":
            must = tuple(tool.name for tool in tools)
        elif choice.type == "tool":
            must = (choice.name or "",)
        listed = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
            }
            for tool in tools
        ]
        return Form(
            tools=json.dumps(listed, ensure_ascii=False) if listed else "",
            must_call=must,
            one_call=bool(must) or choice.disable_parallel_tool_use,
        )


class MessageAnswers:
    """A message, whole or as named events; one answer a request."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = wire.new_id("msg")
        self._index = -1
        self._open: Literal["thinking", "text"] | None = None

    def begin(self, choice: int) -> list[bytes]:
        """Return the event that begins a message."""
        message = self._message([], None, None)
        return [_event("message_start", {"message": message})]

    def piece(self, choice: int, piece: TextPiece) -> list[bytes]:
        """Return the events of a piece."""
        made: list[bytes] = []
        if piece.reasoning:
            made += self._opened("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            made.append(self._delta({"type": "thinking_delta", "thinking": piece.reasoning}))
        if piece.content:
            made += self._opened("text", {"type": "text", "text": ""})
            made.append(self._delta({"type": "text_delta", "text": piece.content}))
        for call in piece.calls:
            made += self._closed()
            self._index += 1
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            made.append(_event("content_block_start", {"index": self._index, "content_block": block}))
            made.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
            made.append(_event("content_block_stop", {"index": self._index}))
        return made

    def end(self, choice: int, finish: Finish, content: str) -> list[bytes]:
        """Return the events that end the message."""
        reason = {"stop_reason": _REASONS[finish.reason], "stop_sequence": None}
        tail = [_event("message_delta", {"delta": reason, "usage": _usage(finish)}), _event("message_stop", {})]
        return self._closed() + tail

    def close(self, finishes: Sequence[Finish]) -> list[bytes]:
        """Return nothing: the message has said that it ends."""
        return []

    def error(self, error: DanluError) -> bytes:
        """Return an error event."""
        return _event("error", {"error": error_body(error)["error"]})

    def whole(self, made: Sequence[Whole]) -> Json:
        """Return the message."""
        one = made[0]
        blocks: list[Json] = []
        if one.reasoning:
            blocks.append({"type": "thinking", "thinking": one.reasoning, "signature": ""})
        if one.content:
            blocks.append({"type": "text", "text": one.content})
        blocks += [_block(call) for call in one.calls]
        return self._message(blocks, _REASONS[one.ended.reason], one.ended)

    def _message(self, content: list[Json], reason: str | None, finish: Finish | None) -> Json:
        usage = {"input_tokens": 0, "output_tokens": 0} if finish is None else _usage(finish)
        return {
            "id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": usage,
        }  # fmt: skip

    def _opened(self, kind: Literal["thinking", "text"], block: Json) -> list[bytes]:
        if self._open == kind:
            return []
        made = self._closed()
        self._open = kind
        self._index += 1
        return [*made, _event("content_block_start", {"index": self._index, "content_block": block})]

    def _closed(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", {"index": self._index})]

    def _delta(self, delta: Json) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def error_body(error: DanluError) -> Json:
    """Return an error in Anthropic's shape."""
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    if isinstance(error, NoKeyError):
        kind = "authentication_error"
    elif isinstance(error, QuotaError):
        kind = "rate_limit_error"
    elif isinstance(error, BusyError):
        kind = "overloaded_error"
    elif error.status == 404:
        kind = "not_found_error"
    elif error.status == 413:
        kind = "request_too_large"
    return {"type": "error", "error": {"type": kind, "message": error.message()}}


def _usage(finish: Finish) -> Json:
    return {
        "input_tokens": finish.prompt_tokens - finish.cached_tokens,
        "cache_read_input_tokens": finish.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": finish.completion_tokens,
    }


def _block(call: Call) -> Json:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def _event(kind: str, value: Json) -> bytes:
    data = json.dumps({"type": kind, **value}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()

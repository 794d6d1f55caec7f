"""The wire: pydantic models of OpenAI's requests, and pure functions from gateway events to its JSON.

A field that Danlu cannot honour is named in an error rather than ignored. Not for HTTP.
Source of names and shapes: OpenAI's public API reference (chat completions, completions, models, errors).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from danlu.errors import BusyError, DanluError, TooLargeError, UsageError
from danlu.i18n import Language
from danlu.models.messages import Message, Role
from danlu.serving.engine import Finish
from danlu.serving.served import SamplingOverrides

Json = dict[str, Any]

# Meaningless for one local model, and harmless: accepted and not used.
_ACCEPTED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
# Fields with a value that asks for nothing: clients send these defaults along.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
}


class WireError(UsageError):
    """A request that cannot be honoured; ``param`` names the field."""

    def __init__(self, key: str, /, *, param: str | None = None, **params: object) -> None:
        super().__init__(key, None, param=param or "", **params)
        self.param = param


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message as callers send it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def message(self) -> Message:
        """Return it as the program's own type; OpenAI's ``developer`` is a system message."""
        role: Role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role, text)


class _Generation(BaseModel):
    """What chat completions and completions share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(None, description="an assistant's or a version's name; the default one when absent")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, description="not OpenAI's; 0 switches it off")
    min_p: float | None = Field(None, ge=0, le=1, description="not OpenAI's; 0 switches it off")
    repetition_penalty: float | None = Field(None, gt=0, le=2, description="not OpenAI's; 1 switches it off")
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**32)
    stop: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: object) -> object:
        if value is None:
            return []
        return [value] if isinstance(value, str) else value

    @field_validator("stream", mode="before")
    @classmethod
    def _null_stream(cls, value: object) -> object:
        return False if value is None else value

    @model_validator(mode="after")
    def _name_what_is_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _ACCEPTED or value in _NEUTRAL.get(name, ()):
                continue
            raise WireError("serving.unsupported_field", param=name)
        return self

    def wants_usage(self) -> bool:
        """Return whether a streamed answer ends with its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def overrides(self) -> SamplingOverrides:
        """Return what the caller asked for."""
        return SamplingOverrides(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=tuple(self.stop),
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )


class ChatCompletionRequest(_Generation):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _newer_name_wins(self) -> Self:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return self


class CompletionRequest(_Generation):
    """``POST /v1/completions``: one prompt, as text or as token ids, without the chat template."""

    prompt: str | list[int] | list[str] | list[list[int]]

    def single(self) -> str | tuple[int, ...]:
        """Return the one prompt.

        Raises:
            WireError: several prompts, or none.
        """
        prompt = self.prompt
        if isinstance(prompt, str):
            return prompt
        if prompt and isinstance(prompt[0], int):
            return tuple(token for token in prompt if isinstance(token, int))
        if len(prompt) != 1:
            raise WireError("serving.one_prompt", param="prompt")
        only = prompt[0]
        return only if isinstance(only, str) else tuple(only)  # type: ignore[arg-type]


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


R = TypeVar("R", bound=BaseModel)


def parse(kind: type[R], body: bytes | str | Mapping[str, Any]) -> R:
    """Read a request from a JSON body, or from a query's names and values.

    Raises:
        WireError: not JSON, a field missing, of the wrong type, out of range, or unsupported.
    """
    try:
        if isinstance(body, bytes | str):
            return kind.model_validate_json(body)
        return kind.model_validate(dict(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise WireError("serving.bad_request", param=param, reason=first["msg"]) from error


def new_id(prefix: str) -> str:
    """Return an id in OpenAI's manner."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    """Return the time in whole seconds, as OpenAI's ``created``."""
    return int(time.time())


def usage(finish: Finish) -> Json:
    """Return the token counts of an answer."""
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.cached_tokens},
    }


def chat_response(answer_id: str, created: int, model: str, content: str, reasoning: str, finish: Finish) -> Json:
    """Return a whole ``chat.completion``."""
    message: Json = {"role": "assistant", "content": content, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish.reason}
    return _envelope(answer_id, "chat.completion", created, model, [choice]) | {"usage": usage(finish)}


def chat_chunk(answer_id: str, created: int, model: str, delta: Json, finish_reason: str | None = None) -> Json:
    """Return one ``chat.completion.chunk``."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _envelope(answer_id, "chat.completion.chunk", created, model, [choice])


def completion_response(answer_id: str, created: int, model: str, text: str, finish: Finish) -> Json:
    """Return a whole ``text_completion``."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish.reason}
    return _envelope(answer_id, "text_completion", created, model, [choice]) | {"usage": usage(finish)}


def completion_chunk(answer_id: str, created: int, model: str, text: str, finish_reason: str | None = None) -> Json:
    """Return one chunk of a streamed ``text_completion``."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return _envelope(answer_id, "text_completion", created, model, [choice])


def usage_chunk(kind: str, answer_id: str, created: int, model: str, finish: Finish) -> Json:
    """Return the last chunk of a stream that was asked for usage: no choices, only counts."""
    return _envelope(answer_id, kind, created, model, []) | {"usage": usage(finish)}


def model_object(name: str, created: int) -> Json:
    """Return one entry of the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "danlu"}


def error_body(error: DanluError, lang: Language | None = None) -> Json:
    """Return an error in OpenAI's shape."""
    kind, code = "invalid_request_error" if error.status < 500 else "server_error", error.key
    if isinstance(error, TooLargeError):
        code = "context_length_exceeded"
    elif isinstance(error, BusyError):
        code = "overloaded"
    elif error.key == "serving.unknown_model":
        code = "model_not_found"
    elif error.key == "serving.unsupported_field":
        code = "unsupported_parameter"
    param = error.param if isinstance(error, WireError) else None
    return {"error": {"message": error.message(lang), "type": kind, "param": param, "code": code}}


def sse(value: Json) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def sse_comment(text: str) -> bytes:
    """Return a line that keeps a connection alive and that clients ignore."""
    return f": {text}\n\n".encode()


def _envelope(answer_id: str, kind: str, created: int, model: str, choices: list[Json]) -> Json:
    return {"id": answer_id, "object": kind, "created": created, "model": model, "choices": choices}

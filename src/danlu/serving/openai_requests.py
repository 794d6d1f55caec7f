"""What callers send: pydantic models of OpenAI's requests.

A field that Danlu cannot honour is named in an error rather than ignored. Not for HTTP, nor for what is sent back
(``openai_wire``). Source of names, shapes and ranges: OpenAI's public API reference (chat completions, completions,
embeddings).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from danlu.errors import UsageError
from danlu.models.messages import Message, Role, ToolCall
from danlu.serving.engine import Form
from danlu.serving.served import SamplingOverrides

MOST_CHOICES: Final = 16  # answers to one request; each takes a place of its own in the queue
MOST_TEXTS: Final = 256  # texts of one request for embeddings
_TOP_LOGPROBS: Final = 20
_SEEDS: Final = 2**32 - 1  # engines take 32 bits, of which the last number means "random"

# Meaningless for one local model, and harmless: accepted and not used.
_ACCEPTED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
# Fields with a value that asks for nothing: clients send these defaults along.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
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


class CalledFunction(BaseModel):
    """The function of a call."""

    name: str = Field(min_length=1)
    arguments: str = "{}"


class MessageCall(BaseModel):
    """A call that an assistant made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """A message as callers send it; thoughts of earlier answers (``reasoning_content``) are not used."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[MessageCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise WireError("serving.empty_message", param="messages", role=self.role)
        if self.tool_calls and self.role != "assistant":
            raise WireError("serving.calls_of_others", param="messages", role=self.role)
        for call in self.tool_calls or ():
            if not _is_object(call.function.arguments):
                raise WireError("serving.arguments_not_json", param="messages", name=call.function.name)
        return self

    def message(self) -> Message:
        """Return it as the program's own type; OpenAI's ``developer`` is a system message."""
        role: Role = "system" if self.role == "developer" else self.role
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        calls = tuple(ToolCall(call.function.name, call.function.arguments) for call in self.tool_calls or ())
        return Message(role, text, tool_calls=calls)


class Function(BaseModel):
    """A function that may be called."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool; only functions are understood."""

    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    """The name of a function."""

    name: str


class NamedTool(BaseModel):
    """The tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(BaseModel):
    """A schema that the answer follows."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field({}, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def schema_text(self) -> str | None:
        """Return the schema as text; None for free text.

        Raises:
            WireError: none is given, or it is not a JSON Schema.
        """
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.json_schema is None:
            raise WireError("serving.bad_schema", param="response_format.json_schema", reason="–")
        return _checked(self.json_schema.schema_, "response_format.json_schema.schema")


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
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=300)
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
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

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.n or 1

    def wants_usage(self) -> bool:
        """Return whether a streamed answer ends with its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def overrides(self, choice: int = 0) -> SamplingOverrides:
        """Return what the caller asked for; each answer of several has a seed of its own."""
        return SamplingOverrides(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=None if self.seed is None else (self.seed + choice) % _SEEDS,
            stop=tuple(self.stop),
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=tuple(sorted((self.logit_bias or {}).items())),
        )


class ChatCompletionRequest(_Generation):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _newer_name_wins(self) -> Self:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return self

    @model_validator(mode="after")
    def _in_agreement(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise WireError("serving.needs_field", param="top_logprobs", other="logprobs")
        names = {tool.function.name for tool in self.tools or ()}
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise WireError("serving.unknown_tool", param="tool_choice", name=self.tool_choice.function.name)
        if self.tool_choice == "required" and not names:
            raise WireError("serving.needs_field", param="tool_choice", other="tools")
        for tool in self.tools or ():
            _checked(tool.function.parameters or {}, f"tools.{tool.function.name}.parameters")
        return self

    def form(self) -> Form:
        """Return what the answer has to look like.

        Raises:
            WireError: not a JSON Schema, or tools and a schema together.
        """
        schema = self.response_format.schema_text() if self.response_format is not None else None
        tools = [] if self.tool_choice == "none" else list(self.tools or ())
        if schema is not None and tools:
            raise WireError("serving.schema_and_tools", param="response_format")
        must: tuple[str, ...] = ()
        if isinstance(self.tool_choice, NamedTool):
            must = (self.tool_choice.function.name,)
        elif self.tool_choice == "required":
            must = tuple(tool.function.name for tool in tools)
        listed = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in tools]
        return Form(
            schema=schema,
            tools=json.dumps(listed, ensure_ascii=False) if listed else "",
            must_call=must,
            one_call=bool(must) or self.parallel_tool_calls is False,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class CompletionRequest(_Generation):
    """``POST /v1/completions``: prompts, as text or as token ids, without the chat template."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=_TOP_LOGPROBS)
    echo: bool | None = None

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Return the prompts.

        Raises:
            WireError: none, or more answers than one request may have, or an echo of token ids.
        """
        given = self.prompt
        made: list[str | tuple[int, ...]]
        if isinstance(given, str):
            made = [given]
        elif given and isinstance(given[0], int):
            made = [tuple(token for token in given if isinstance(token, int))]
        else:
            made = [one if isinstance(one, str) else tuple(one) for one in given if not isinstance(one, int)]
        if not made or not all(made):
            raise WireError("serving.no_prompt", param="prompt")
        if len(made) * self.choices > MOST_CHOICES:
            raise WireError("serving.too_many", param="prompt", most=MOST_CHOICES)
        if self.echo and not all(isinstance(one, str) for one in made):
            raise WireError("serving.echo_of_ids", param="echo")
        return made


class EmbeddingsRequest(BaseModel):
    """``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    input: str | list[str] = Field(description="one text or several; token ids are not taken")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @model_validator(mode="after")
    def _name_what_is_unsupported(self) -> Self:
        if self.dimensions is not None:
            raise WireError("serving.unsupported_field", param="dimensions")
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _ACCEPTED:
                raise WireError("serving.unsupported_field", param=name)
        return self

    def texts(self) -> tuple[str, ...]:
        """Return the texts.

        Raises:
            WireError: none, an empty one, or too many.
        """
        made = (self.input,) if isinstance(self.input, str) else tuple(self.input)
        if not made or not all(made):
            raise WireError("serving.no_prompt", param="input")
        if len(made) > MOST_TEXTS:
            raise WireError("serving.too_many", param="input", most=MOST_TEXTS)
        return made


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


def _checked(schema: dict[str, Any], param: str) -> str:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise WireError("serving.bad_schema", param=param, reason=error.message[:200]) from error
    return json.dumps(schema, ensure_ascii=False)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False

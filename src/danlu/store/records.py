"""What ``store`` hands out and takes in: frozen values without any tie to a session or a table."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from danlu.errors import DanluError, Problem
from danlu.i18n import Language, t
from danlu.models.versions import GenerationDefaults

MessageRole = Literal["user", "assistant"]
MessageStatus = Literal["complete", "queued", "generating", "stopped", "interrupted", "failed"]
UNFINISHED: tuple[MessageStatus, ...] = ("queued", "generating")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Assistant(_Record):
    """What people talk to.

    Attributes:
        id: stable name for programs.
        name: what people see; unique.
        version_id: the model version in service.
        engine: ``llamacpp``, ``transformers``, ``openai:URL``, or ``auto``.
        system: system prompt; empty for the one saved with the version.
        greeting: opening line of an empty conversation.
        suggestions: questions to begin with.
        generation: how it answers unless a caller says otherwise.
    """

    id: str
    name: str
    version_id: str
    engine: str
    system: str
    greeting: str
    suggestions: tuple[str, ...]
    generation: GenerationDefaults
    created_at: datetime
    updated_at: datetime


class AssistantVersion(_Record):
    """A version that an assistant has been given.

    Attributes:
        number: 1 is the first.
        version_id: the model version.
        engine: what it was served by.
        put_at: when.
    """

    number: int
    version_id: str
    engine: str
    put_at: datetime


class ApiKey(_Record):
    """A key of a program that calls the API.

    Attributes:
        id: stable name for programs.
        name: what people call it; unique.
        hint: its beginning, to tell keys apart.
        assistants: names that it may call; None for all.
        requests_per_minute: None for no bound.
        tokens_per_day: read and written, by the day of UTC; None for no bound.
        expires_at: from then on it is refused; None for never.
        revoked_at: since when it is refused; None while it is not.
        last_used_at: None before its first use.
    """

    id: str
    name: str
    hint: str
    assistants: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_day: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyUsage(_Record):
    """What a key has used on a day of UTC."""

    key_id: str
    day: date
    requests: int
    prompt_tokens: int
    completion_tokens: int


class MessageError(_Record):
    """Why an answer failed, kept as key and parameters so that every reader sees it in their own language."""

    code: str
    status: int
    where: str | None = None
    params: dict[str, str | int | float | bool | None] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: DanluError) -> Self:
        """Keep what is needed to word ``error`` again later."""
        params = {
            name: value if isinstance(value, str | int | float | bool | None) else str(value)
            for name, value in error.params.items()
        }
        return cls(code=error.key, status=error.status, where=error.where, params=params)

    def problem(self, lang: Language | None = None) -> Problem:
        """Return the problem document; a key that later versions no longer know gives a plain one."""
        try:
            problem = DanluError(self.code, self.where, **self.params).problem(lang)
        except KeyError:
            what = t("store.unknown_problem.what", lang, code=self.code)
            fix = t("store.unknown_problem.fix", lang)
            problem = DanluError("store.unknown_problem", self.where, code=self.code).problem(lang)
            problem = {**problem, "title": what, "fix": fix, "code": self.code}
        return {**problem, "status": self.status}


class Provenance(_Record):
    """Where an answer came from.

    Attributes:
        assistant: name of the assistant.
        version: model version that answered.
        engine: kind of engine.
        tokens: generated tokens, reasoning included.
        tokens_per_second: over the time of generation alone; None when too few to tell.
        seconds: from the start of generation to its end; waiting in the queue is not in it.
        finish_reason: ``stop``, ``length``, or ``cancelled``.
        reasoning_seconds: how long it reasoned before answering; None without reasoning.
        dropped_turns: oldest turns (question with answer) left out because the context is too small for all.
    """

    assistant: str
    version: str
    engine: str
    tokens: int
    tokens_per_second: float | None
    seconds: float
    finish_reason: str
    reasoning_seconds: float | None = None
    dropped_turns: int = 0


class Conversation(_Record):
    """A conversation as the list shows it."""

    id: str
    assistant_id: str
    title: str
    pinned: bool
    leaf_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    generating: bool


class Message(_Record):
    """One question or answer of a conversation's tree."""

    id: str
    conversation_id: str
    parent_id: str | None
    client_id: str | None
    role: MessageRole
    status: MessageStatus
    content: str
    reasoning: str | None
    error: MessageError | None
    provenance: Provenance | None
    created_at: datetime
    finished_at: datetime | None


class ConversationPage(_Record):
    """Some conversations, and where the next ones begin."""

    items: tuple[Conversation, ...]
    next_cursor: str | None

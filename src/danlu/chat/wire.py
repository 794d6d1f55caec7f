"""The shapes in which conversations and assistants travel to the web application, over HTTP and WebSocket alike."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from danlu.i18n import Language
from danlu.store.records import Conversation, Message, MessageRole, MessageStatus, Provenance


class View(BaseModel):
    """Parent of everything that goes out."""

    model_config = ConfigDict(frozen=True)


class ProblemView(View):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str | None
    fix: str


class ModelView(View):
    """The model version behind an assistant."""

    version_id: str
    name: str
    base: str


class EngineView(View):
    """The state of the process that generates."""

    kind: str
    state: Literal["stopped", "loading", "ready", "restarting", "failed"]
    detail: str | None
    running: int
    waiting: int
    capacity: int


class AssistantView(View):
    """What people talk to."""

    id: str
    name: str
    greeting: str
    suggestions: tuple[str, ...]
    system: str
    model: ModelView
    engine: EngineView


class ConversationView(View):
    """A conversation as the list shows it."""

    id: str
    title: str
    assistant_id: str
    pinned: bool
    created_at: datetime
    updated_at: datetime
    leaf_id: str | None
    generating: bool

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """Return the view of a record."""
        return cls.model_validate(conversation.model_dump(include=set(cls.model_fields)))


class MessageView(View):
    """A question or an answer, its error worded in the reader's language."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: MessageRole
    content: str
    reasoning: str | None
    status: MessageStatus
    error: ProblemView | None
    created_at: datetime
    finished_at: datetime | None
    provenance: Provenance | None

    @classmethod
    def of(cls, message: Message, lang: Language) -> Self:
        """Return the view of a record."""
        return cls(
            id=message.id,
            conversation_id=message.conversation_id,
            parent_id=message.parent_id,
            role=message.role,
            content=message.content,
            reasoning=message.reasoning,
            status=message.status,
            error=None if message.error is None else ProblemView.model_validate(message.error.problem(lang)),
            created_at=message.created_at,
            finished_at=message.finished_at,
            provenance=message.provenance,
        )


class ThreadView(View):
    """All of a conversation at one point of its event log."""

    conversation: ConversationView
    messages: tuple[MessageView, ...]
    seq: int
    epoch: str


class MessageEvent(View):
    """A message is new, or has changed."""

    kind: Literal["message"] = "message"
    message: MessageView


class DeltaEvent(View):
    """Text to append to a message."""

    kind: Literal["delta"] = "delta"
    message_id: str
    content: str
    reasoning: str


class QueueEvent(View):
    """A waiting answer has another place; 1 is next."""

    kind: Literal["queue"] = "queue"
    message_id: str
    position: int
    eta_seconds: float | None


class ConversationEvent(View):
    """Title, pin, branch on show or the like have changed."""

    kind: Literal["conversation"] = "conversation"
    conversation: ConversationView


EventView = Annotated[MessageEvent | DeltaEvent | QueueEvent | ConversationEvent, Field(discriminator="kind")]


class EventFrame(View):
    """One numbered event of a conversation."""

    type: Literal["event"] = "event"
    conversation_id: str
    seq: int
    event: EventView


class SnapshotFrame(ThreadView):
    """A conversation as a whole, for a reader whose last event is too old to go on from."""

    type: Literal["snapshot"] = "snapshot"
    conversation_id: str


class ListFrame(View):
    """The list of conversations has changed."""

    type: Literal["conversations"] = "conversations"
    change: Literal["upsert", "delete"]
    conversation: ConversationView


class EngineFrame(View):
    """An assistant's engine has another state."""

    type: Literal["engine"] = "engine"
    assistant: AssistantView

"""What a browser may ask over the WebSocket, checked before anything is done with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Id


class Subscribe(_Command):
    """Follow a conversation from ``last_seq`` of ``epoch`` on, or from a snapshot."""

    type: Literal["subscribe"]
    conversation_id: Id
    epoch: str | None = None
    last_seq: int | None = None


class Unsubscribe(_Command):
    """Follow it no longer."""

    type: Literal["unsubscribe"]
    conversation_id: Id


class Send(_Command):
    """Ask a question."""

    type: Literal["send"]
    client_id: Id
    conversation_id: Id
    parent_id: Id | None = None
    content: str


class Regenerate(_Command):
    """Have an answer generated again, beside the one there is."""

    type: Literal["regenerate"]
    client_id: Id
    conversation_id: Id
    message_id: Id


class Stop(_Command):
    """Stop an answer."""

    type: Literal["stop"]
    conversation_id: Id
    message_id: Id


class Ping(_Command):
    """Ask for a sign of life."""

    type: Literal["ping"]


Command = Annotated[
    Subscribe | Unsubscribe | Send | Regenerate | Stop | Ping,
    Field(discriminator="type"),
]
COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)


class Envelope(BaseModel):
    """What is read of a command that is not valid, so that its sender can be told which one."""

    model_config = ConfigDict(extra="ignore")

    id: Id | None = None

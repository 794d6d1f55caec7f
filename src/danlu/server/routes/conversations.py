"""``/api/conversations``: list, open, rename, pin, delete, restore, export. Live answers go through ``/ws``."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from danlu.chat.export import ExportFormat, export_conversation, file_name
from danlu.chat.wire import ConversationView, ThreadView
from danlu.server.access import ServicesDep

router = APIRouter(prefix="/api/conversations", tags=["conversations"])
_MEDIA = {"markdown": "text/markdown; charset=utf-8", "json": "application/json"}


class ConversationList(BaseModel):
    """Some conversations, and where the next ones begin."""

    items: list[ConversationView]
    next_cursor: str | None


class NewConversation(BaseModel):
    """With whom to talk; the default assistant when none is named."""

    model_config = ConfigDict(extra="forbid")

    assistant_id: str | None = None


class ConversationChange(BaseModel):
    """What to change; what is absent stays."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = None
    pinned: bool | None = None
    leaf_id: str | None = Field(None, description="the message at the end of the branch on show")


@router.get("")
async def list_conversations(
    services: ServicesDep,
    query: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> ConversationList:
    """List conversations, pinned first, then newest; ``query`` looks into titles and messages."""
    page = await services.conversations.page(query=query, limit=limit, cursor=cursor)
    return ConversationList(items=[ConversationView.of(item) for item in page.items], next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_conversation(services: ServicesDep, body: NewConversation) -> ConversationView:
    """Begin an empty conversation."""
    return ConversationView.of(await services.conversations.create(body.assistant_id))


@router.get("/{conversation_id}")
async def get_conversation(conversation_id: str, services: ServicesDep) -> ThreadView:
    """Return a conversation with all its messages, and the number of its last event."""
    return await services.conversations.thread(conversation_id)


@router.patch("/{conversation_id}")
async def change_conversation(
    conversation_id: str, services: ServicesDep, body: ConversationChange
) -> ConversationView:
    """Rename, pin, or show another branch."""
    changed = await services.conversations.change(
        conversation_id, title=body.title, pinned=body.pinned, leaf_id=body.leaf_id
    )
    return ConversationView.of(changed)


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, services: ServicesDep) -> None:
    """Hide a conversation; its answers are stopped."""
    await services.conversations.delete(conversation_id)


@router.post("/{conversation_id}/restore")
async def restore_conversation(conversation_id: str, services: ServicesDep) -> ConversationView:
    """Bring a deleted conversation back."""
    return ConversationView.of(await services.conversations.restore(conversation_id))


@router.get("/{conversation_id}/export")
async def export(
    conversation_id: str, services: ServicesDep, form: Annotated[ExportFormat, Query(alias="format")] = "markdown"
) -> Response:
    """Download a conversation: Markdown for the branch on show, JSON for all of it."""
    conversation, messages = await services.conversations.messages(conversation_id)
    name = file_name(conversation, form)
    return Response(
        export_conversation(conversation, messages, form),
        media_type=_MEDIA[form],
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"},
    )

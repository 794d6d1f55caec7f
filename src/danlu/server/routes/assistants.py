"""``/api/assistants``: whom one can talk to."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from danlu.chat.wire import AssistantView
from danlu.server.access import ServicesDep

router = APIRouter(prefix="/api", tags=["assistants"])


class AssistantList(BaseModel):
    """All assistants."""

    items: list[AssistantView]


@router.get("/assistants")
async def list_assistants(services: ServicesDep) -> AssistantList:
    """List the assistants, the default one first, with the state of their engines."""
    return AssistantList(items=[services.directory.view(listed) for listed in services.directory.all()])

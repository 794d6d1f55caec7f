"""``/api/app``: what the web application asks first."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from danlu import __version__
from danlu.i18n import language
from danlu.server.access import ServicesDep

router = APIRouter(prefix="/api", tags=["app"])


class AppInfo(BaseModel):
    """The server as the web application needs to know it."""

    version: str
    language: str
    assistants_ready: bool
    loopback_only: bool


@router.get("/app")
async def app_info(services: ServicesDep) -> AppInfo:
    """Describe the server."""
    directory = services.directory
    ready = any(directory.view(listed).engine.state == "ready" for listed in directory.all())
    # Until accounts exist, anybody who reaches the port may do everything.
    return AppInfo(version=__version__, language=language(), assistants_ready=ready, loopback_only=True)

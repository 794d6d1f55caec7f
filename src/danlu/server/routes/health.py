"""How the server is: for people, for load balancers, for scripts. Never waits for an engine or the database."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from danlu import __version__
from danlu.chat.wire import AssistantView
from danlu.server.access import ServicesDep

router = APIRouter(tags=["health"])


class EngineHealth(BaseModel):
    """The default assistant's engine."""

    kind: str
    state: str
    detail: str | None


class QueueHealth(BaseModel):
    """How busy the default assistant's engine is."""

    running: int
    waiting: int
    capacity: int


class Health(BaseModel):
    """The state of the server; ``model``, ``engine`` and ``queue`` are those of the default assistant."""

    status: Literal["healthy", "loading", "degraded"]
    version: str
    model: str | None
    engine: EngineHealth | None
    queue: QueueHealth | None
    assistants: dict[str, str]


@router.get("/health")
async def health(services: ServicesDep) -> Health:
    """Say how the server is; always 200."""
    views = [services.directory.view(listed) for listed in services.directory.all()]
    view = _default(views)
    if view is None:
        return Health(status="degraded", version=__version__, model=None, engine=None, queue=None, assistants={})
    engine = view.engine
    status: Literal["healthy", "loading", "degraded"] = "degraded"
    if engine.state == "ready":
        status = "healthy"
    elif engine.state in {"loading", "restarting"}:
        status = "loading"
    return Health(
        status=status,
        version=__version__,
        model=view.model.name,
        engine=EngineHealth(kind=engine.kind, state=engine.state, detail=engine.detail),
        queue=QueueHealth(running=engine.running, waiting=engine.waiting, capacity=engine.capacity),
        assistants={view.name: view.engine.state for view in views},
    )


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(services: ServicesDep, response: Response) -> dict[str, str]:
    """Say whether the default assistant can answer: 200 or 503."""
    view = _default([services.directory.view(listed) for listed in services.directory.all()])
    state = view.engine.state if view is not None else "no assistant"
    if state != "ready":
        response.status_code = 503
    return {"status": state}


def _default(views: list[AssistantView]) -> AssistantView | None:
    """Return the one that callers get who name none: the first that has not failed."""
    return min(views, key=lambda view: view.engine.state == "failed", default=None)

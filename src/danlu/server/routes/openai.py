"""``/v1``: OpenAI's formats, for programs that speak them. The shapes are ``danlu.serving``'s business."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from danlu.server.access import ServicesDep
from danlu.server.streaming import respond
from danlu.serving import api

router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/chat/completions")
async def chat_completions(request: Request, services: ServicesDep) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    body = await request.body()
    return await respond(request, services, lambda: api.chat_completions(services.registry, body))


@router.post("/completions")
async def completions(request: Request, services: ServicesDep) -> Response:
    """Continue a text without any chat template."""
    body = await request.body()
    return await respond(request, services, lambda: api.completions(services.registry, body))


@router.get("/models")
async def models(services: ServicesDep) -> Response:
    """List what ``model`` may name."""
    return JSONResponse(api.models(services.registry))


@router.get("/models/{name:path}")
async def model(name: str, services: ServicesDep) -> Response:
    """Describe one of them."""
    return JSONResponse(api.model(services.registry, name))

"""``/v1``: OpenAI's formats, and Anthropic's messages. The shapes are ``danlu.serving``'s business."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from danlu.server.access import CallerDep, KnownCallerDep, ServicesDep
from danlu.server.streaming import respond
from danlu.serving import api
from danlu.serving.anthropic_wire import MessagesRequest
from danlu.serving.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingsRequest

router = APIRouter(prefix="/v1", tags=["openai"])
PARTS: Final[dict[str, Any]] = {}
"""Descriptions that the bodies refer to, for ``components`` of the OpenAPI document."""


def takes(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a body that the route reads by itself; its parts go to ``PARTS``."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    PARTS.update(schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/chat/completions", openapi_extra=takes(ChatCompletionRequest))
async def chat_completions(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    body = await request.body()
    return await respond(request, services, lambda: api.chat_completions(services.registry, body, caller))


@router.post("/completions", openapi_extra=takes(CompletionRequest))
async def completions(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Continue texts without any chat template."""
    body = await request.body()
    return await respond(request, services, lambda: api.completions(services.registry, body, caller))


@router.post("/embeddings", openapi_extra=takes(EmbeddingsRequest))
async def embeddings(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Return a vector for each text: the model's own state at its last token."""
    body = await request.body()
    return await respond(request, services, lambda: api.embeddings(services.registry, body, caller))


@router.post("/messages", openapi_extra=takes(MessagesRequest))
async def messages(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Answer a conversation in Anthropic's format, whole or as server-sent events."""
    body = await request.body()
    return await respond(request, services, lambda: api.messages(services.registry, body, caller))


@router.get("/models")
async def models(services: ServicesDep, caller: KnownCallerDep) -> JSONResponse:
    """List what ``model`` may name."""
    return JSONResponse(api.models(services.registry, caller))


@router.get("/models/{name:path}")
async def model(name: str, services: ServicesDep, caller: KnownCallerDep) -> JSONResponse:
    """Describe one of them."""
    return JSONResponse(api.model(services.registry, name, caller))

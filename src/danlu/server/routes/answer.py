"""``/answer``: the question and the answer alone, compatible with the scripts it replaces."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request
from starlette.responses import Response

from danlu.server.access import CallerDep, ServicesDep
from danlu.server.streaming import respond
from danlu.serving import api
from danlu.serving.answer_request import AnswerRequest
from danlu.serving.openai_requests import WireError

router = APIRouter(tags=["answer"])
_BODY = {"requestBody": {"content": {"application/json": {"schema": AnswerRequest.model_json_schema()}}}}


@router.get("/answer")
async def get_answer(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Answer ``prompt``; see POST for the other parameters."""
    try:
        unquote_to_bytes(request.scope["query_string"]).decode("utf-8")
    except UnicodeDecodeError as error:
        # Starlette would put replacement characters, and the model would answer those.
        raise WireError("serving.query_not_utf8") from error
    query = dict(request.query_params)
    return await respond(request, services, lambda: api.answer(services.registry, query, caller))


@router.post("/answer", openapi_extra=_BODY)
async def post_answer(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Answer one question, the chat template applied: ``{"generated_text", "model", "finish_reason"}``."""
    body = await request.body()
    return await respond(request, services, lambda: api.answer(services.registry, body, caller))

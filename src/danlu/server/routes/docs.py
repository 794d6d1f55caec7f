"""``/docs``: the routes in plain HTML; the OpenAPI document is beside it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from danlu.server.api_page import api_page

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return a page that lists every route with what it takes."""
    return HTMLResponse(api_page(request.app.openapi()))

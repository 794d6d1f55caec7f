"""``/docs``: the routes in plain HTML, without a script from anywhere; the OpenAPI document is beside it."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from danlu.i18n import language, t

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return a page that lists every route with its parameters."""
    sections = []
    for path, methods in request.app.openapi()["paths"].items():
        for method, route in methods.items():
            description = escape(str(route.get("description", "")))
            names = ", ".join(f"<code>{escape(item['name'])}</code>" for item in route.get("parameters", []))
            where = f"<p>{escape(t('server.docs.parameters'))}: {names}</p>" if names else ""
            sections.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{description}</p>{where}")
    return HTMLResponse(
        f"<!doctype html><html lang='{language()}'><meta charset='utf-8'><title>Danlu API</title>"
        f"<h1>Danlu API</h1><p>{escape(t('server.docs.intro'))} <a href='/openapi.json'>/openapi.json</a></p>"
        + "".join(sections)
        + "</html>"
    )

"""Puts the HTTP face together: routes, middleware, errors, the web application's files."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from danlu import __version__
from danlu.server import web, ws, ws_answers
from danlu.server.middleware import BodyLimit, Context, Guard, Headers
from danlu.server.problems import add_error_handlers
from danlu.server.routes import answer, app_info, assistants, conversations, docs, health, metrics, openai
from danlu.server.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application for services that have been started."""
    app = FastAPI(title="Danlu", version=__version__, docs_url=None, redoc_url=None)
    app.state.services = services
    add_error_handlers(app)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {}).setdefault("schemas", {}).update(openai.PARTS)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    for routes in (health, metrics, answer, openai, app_info, assistants, conversations, docs, ws, ws_answers):
        app.include_router(routes.router)
    # Last: it answers every address that nothing else did.
    app.include_router(web.router)
    # The one added last is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Guard, hosts=services.hosts)
    app.add_middleware(Context, answered=services.metrics.answered)
    app.add_middleware(Headers)
    return app

"""Errors on their way out: problem documents (RFC 9457) in the reader's language; OpenAI's shape under ``/v1``."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from danlu.errors import DanluError, NotFoundError
from danlu.i18n import LANGUAGES, catalogue, t
from danlu.serving import anthropic_wire, api

PROBLEM_TYPE: Final = "application/problem+json"


class ForbiddenError(DanluError):
    """The request comes from where it must not come from."""

    status: ClassVar[int] = 403


class InvalidRequestError(DanluError):
    """A field of the request is missing or not valid."""

    status: ClassVar[int] = 422


class MethodError(DanluError):
    """The address exists, but not for this method."""

    status: ClassVar[int] = 405


class RefusedError(DanluError):
    """Any other refusal of the web framework, by its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__("server.refused", status=status)
        self.http_status = status


def error_response(error: DanluError, path: str) -> JSONResponse:
    """Return the response for an error at ``path``, in the language in force."""
    if path.startswith("/v1/messages"):
        status, headers, _ = api.error_response(error)
        return JSONResponse(anthropic_wire.error_body(error), status, headers)
    if path.startswith("/v1/"):
        status, headers, body = api.error_response(error)
        return JSONResponse(body, status, headers)
    status = error.http_status if isinstance(error, RefusedError) else error.status
    headers = api.error_headers(error)
    return JSONResponse({**error.problem(), "status": status}, status, headers, media_type=PROBLEM_TYPE)


def invalid(errors: list[Any]) -> InvalidRequestError:
    """Return pydantic's first complaint as an error that names the field."""
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "path"}) or "body"
    return InvalidRequestError("server.invalid_request", field, reason=_reason(str(first["type"])))


def invalid_command(error: ValidationError) -> InvalidRequestError:
    """Return pydantic's first complaint about a WebSocket command."""
    return invalid(list(error.errors(include_url=False, include_input=False)))


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the application its response; what nobody expected is the middleware's business."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DanluError)
        return error_response(error, request.url.path)

    async def not_valid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid(list(error.errors())), request.url.path)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = request.url.path
        reasons = {404: NotFoundError("server.no_route", path), 405: MethodError("server.method_not_allowed", path)}
        response = error_response(reasons.get(error.status_code, RefusedError(error.status_code)), path)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(DanluError, known)
    app.add_exception_handler(RequestValidationError, not_valid)
    app.add_exception_handler(HTTPException, refused)


def _reason(kind: str) -> str:
    """Return pydantic's kind of complaint in the reader's language; kinds without a text get a general one."""
    key = f"server.reasons.{kind}"
    return t(key if all(key in catalogue(lang) for lang in LANGUAGES) else "server.reasons.other")

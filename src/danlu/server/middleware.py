"""What every request passes, as plain ASGI (nothing here buffers a stream or hides a disconnect).

From the outside in: ``Headers`` (security, caching), ``Context`` (id, language, last resort for defects), ``Guard``
(who may ask), ``BodyLimit``.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from danlu.errors import DanluError, TooLargeError
from danlu.files import format_bytes
from danlu.i18n import Language, match_language, use_language
from danlu.server.problems import ForbiddenError, error_response

log = logging.getLogger(__name__)

BODY_LIMIT: Final = 1 << 20
_DRAIN_LIMIT: Final = 16 << 20
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_PROGRAM_PATHS: Final = ("/api/", "/v1/", "/answer", "/ws")
_SECURITY: Final = {
    # Styles may be inline: KaTeX sets style attributes and Reka UI inserts a style element. Without foreign images and
    # fonts they cannot carry anything away. Scripts never come from anywhere but here.
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def language_of(scope: Scope) -> Language | None:
    """Return the language that a request asks for: ``?lang=`` first, then ``Accept-Language``."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    asked = match_language(query["lang"][0]) if "lang" in query else None
    return asked or match_language(RequestHeaders(scope=scope).get("accept-language"))


class Context:
    """Numbers the request, sets its language, and turns a defect into a 500 that tells nothing of the inside.

    A caller's own ``X-Request-Id`` is taken over, so that its log and ours can be matched.

    Args:
        app: the application.
        answered: told the method and the status of every answer over HTTP, or ``left`` where the caller did not wait.
    """

    def __init__(self, app: ASGIApp, answered: Callable[[str, str], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        begun, status = time.monotonic(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with use_language(language_of(scope)):
            try:
                await self._app(scope, receive, tagged)
            except Exception:
                log.exception("request %s %s failed", request_id, scope["path"])
                if scope["type"] == "websocket" or status:
                    raise
                response = error_response(DanluError("server.defect", id=request_id), scope["path"])
                await response(scope, receive, tagged)
            finally:
                if scope["type"] == "http":
                    self._answered(scope["method"], str(status) if status else "left")
                    milliseconds = 1000 * (time.monotonic() - begun)
                    log.debug("%s %s %s %d %.0f ms", request_id, scope["method"], scope["path"], status, milliseconds)


def _request_id(scope: Scope) -> str:
    given = RequestHeaders(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16]


class Headers:
    """Adds security headers to every answer, and forbids keeping what a program asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, secured if scope["type"] == "http" else send)


class Guard:
    """Refuses what a foreign web page could make a browser send.

    A foreign name that resolves to this machine (DNS rebinding) is known by its Host; a foreign page by
    ``Sec-Fetch-Site`` or, in old browsers, by ``Origin``. Programs send neither and pass.

    Args:
        app: the application.
        hosts: allowed names without ports.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        error = self._refusal(scope)
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            log.warning("a WebSocket was refused: %s", error.message("en"))
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await error_response(error, scope["path"])(scope, receive, send)

    def _refusal(self, scope: Scope) -> ForbiddenError | None:
        headers = RequestHeaders(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            return ForbiddenError("server.host_not_allowed", host=host or "–")
        careful = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if not careful and not scope["path"].startswith(_PROGRAM_PATHS):
            return None
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        foreign_origin = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign_origin or (site is not None and site not in {"same-origin", "none"}):
            return ForbiddenError("server.foreign_page", origin=origin or str(site))
        return None


class BodyLimit:
    """Reads the whole body before the application runs, and refuses one that is too large."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] in _SAFE:
            await self._app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            size += len(chunk)
            more = message.get("more_body", False)
            if size <= self._limit:
                body += chunk
            elif size > _DRAIN_LIMIT:
                break  # the caller may see a broken connection; up to here it is let to finish and reads the refusal
        if size > self._limit:
            error = TooLargeError("server.body_too_large", most=format_bytes(self._limit))
            await error_response(error, scope["path"])(scope, receive, send)
            return
        whole: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        await self._app(scope, replay, send)


def _name(host: str) -> str:
    """Return a Host header without its port, in lower case."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]

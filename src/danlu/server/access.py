"""How routes reach the services, and who calls them: ``ServicesDep`` and ``CallerDep`` as types of parameters."""

from __future__ import annotations

import asyncio
import hmac
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from danlu.accounts.errors import NoKeyError
from danlu.server.services import Services
from danlu.serving.caller import Caller

_BEARER = "bearer "


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that handles a request."""
    return cast("Services", connection.app.state.services)


def request_id_of(connection: HTTPConnection) -> str:
    """Return the request's id, which the answer's header has, too."""
    return str(connection.scope.get("state", {}).get("request_id", ""))


async def caller_of(connection: HTTPConnection) -> Caller:
    """Check the API key of a call, and count the call against it.

    The key comes as ``Authorization: Bearer KEY`` or ``x-api-key: KEY``. While no key has been made, callers need
    none, and what they send is not looked at: clients that insist on a key send any.

    Raises:
        NoKeyError: a key is needed and none, or none that is valid, was sent.
        QuotaError: it has used what it may use.
    """
    caller = await known_caller(connection)
    services = services_of(connection)
    if caller.key is not None:
        await asyncio.to_thread(services.keys.admit, caller.key)
    return caller


async def known_caller(connection: HTTPConnection) -> Caller:
    """Check the API key of a connection without counting anything; raises as ``caller_of`` does."""
    services = services_of(connection)
    route, request_id = connection.scope["path"], request_id_of(connection)
    secret = _secret(connection)
    fixed = services.settings.api_key
    if fixed is not None and secret is not None and hmac.compare_digest(secret.encode(), fixed.encode()):
        return Caller(route=route, request_id=request_id)
    if not (fixed is not None or services.settings.require_key or await _needed(services)):
        return Caller(route=route, request_id=request_id)
    if secret is None:
        raise NoKeyError("keys.needed")
    key = await asyncio.to_thread(services.keys.check, secret)
    allowed = None if key.assistants is None else frozenset(key.assistants)
    return Caller(route=route, request_id=request_id, key=key, assistants=allowed)


async def _needed(services: Services) -> bool:
    known = services.keys.known_needed()
    return await asyncio.to_thread(services.keys.needed) if known is None else known


def _secret(connection: HTTPConnection) -> str | None:
    given = connection.headers.get("authorization", "")
    if given.lower().startswith(_BEARER):
        return given[len(_BEARER) :].strip()
    return connection.headers.get("x-api-key")


ServicesDep = Annotated[Services, Depends(services_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]
KnownCallerDep = Annotated[Caller, Depends(known_caller)]

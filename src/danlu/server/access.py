"""How routes reach the services: ``ServicesDep`` as the type of a parameter."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from danlu.server.services import Services


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that handles a request."""
    return cast("Services", connection.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]

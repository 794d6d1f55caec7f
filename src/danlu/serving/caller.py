"""Who calls: the address, the request's id, and what an API key allows. Not for checking keys (``accounts``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from danlu.errors import DanluError, NotFoundError
from danlu.serving.engine import Origin
from danlu.serving.registry import Entry, GatewayRegistry


class NoKeyError(DanluError):
    """A key is needed and there is none, or the one that was sent is not valid (any more)."""

    status: ClassVar[int] = 401


class QuotaError(DanluError):
    """A key has used what it may use; ``retry_after`` says in how many seconds there is more."""

    status: ClassVar[int] = 429

    def __init__(
        self,
        key: str,
        /,
        *,
        retry_after: int,
        code: Literal["rate_limit_exceeded", "insufficient_quota"],
        **params: object,
    ) -> None:
        super().__init__(key, None, retry_after=retry_after, **params)
        self.retry_after = retry_after
        self.code = code


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    Attributes:
        route: the address that is called.
        request_id: the same in the answer's header, in the log and at the engine.
        key_id: the API key; None without one.
        assistants: names that may be called; None for all.
    """

    route: str = ""
    request_id: str = ""
    key_id: str | None = None
    assistants: frozenset[str] | None = None

    def names(self, registry: GatewayRegistry) -> list[str]:
        """Return the served names that this caller may ask for."""
        return [name for name in registry.names() if self.assistants is None or name in self.assistants]

    def pick(self, registry: GatewayRegistry, name: str | None) -> Entry:
        """Return what is served under a name, or the first that this caller may ask for.

        Raises:
            NotFoundError: nothing is, or this caller may not ask for it.
        """
        if self.assistants is None:
            return registry.get(name)
        allowed = self.names(registry)
        asked = name or (allowed[0] if allowed else "")
        if asked not in allowed:
            raise NotFoundError("serving.unknown_model", name=asked, names=", ".join(allowed) or "–")
        return registry.get(asked)

    def origin(self, name: str) -> Origin:
        """Return the origin of a request for a name."""
        return Origin(name, self.route, self.request_id, self.key_id)

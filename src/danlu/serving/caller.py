"""Who calls: the address, the request's id, and what an API key allows. Not for checking keys (``accounts``)."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.errors import NotFoundError
from danlu.serving.engine import Origin
from danlu.serving.registry import Entry, GatewayRegistry
from danlu.store.records import ApiKey


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    Attributes:
        route: the address that is called.
        request_id: the same in the answer's header, in the log and at the engine.
        key: the API key; None without one.
        assistants: names that may be called; None for all.
    """

    route: str = ""
    request_id: str = ""
    key: ApiKey | None = None
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
        return Origin(name, self.route, self.request_id, None if self.key is None else self.key.id)

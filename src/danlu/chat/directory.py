"""Which assistants are in service: each with its model version and the door of its engine.

Filled by the server at its start; every part of the chat finds assistants here. Not for storing them (``store``) and
not for starting engines (``serving``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from danlu.chat.wire import AssistantView, EngineView, ModelView
from danlu.errors import BusyError, DanluError, EngineError, NotFoundError
from danlu.i18n import Language
from danlu.serving.engine import EngineState
from danlu.serving.registry import Entry, GatewayRegistry
from danlu.store.records import Assistant

OnChange = Callable[["Listed"], None]

_PREPARING_SECONDS: Final = 5


@dataclass(frozen=True)
class Listed:
    """An assistant as the directory knows it.

    Attributes:
        assistant: its record.
        model: the version behind it, as far as known.
        problem: why the version cannot be served; None when it is, or will be.
        waiting: why a newer version could not take over, while this one goes on; None otherwise.
    """

    assistant: Assistant
    model: ModelView
    problem: DanluError | None = None
    waiting: DanluError | None = None


class Directory:
    """The assistants of this server, in the order they were put in.

    Args:
        registry: where an assistant's door is found under the assistant's name.
    """

    def __init__(self, registry: GatewayRegistry) -> None:
        self.registry = registry
        self._listed: dict[str, Listed] = {}
        self._listeners: list[OnChange] = []
        registry.subscribe(self._engine_changed)

    def put(self, listed: Listed) -> None:
        """Add an assistant, or change what is known of it."""
        self._listed[listed.assistant.id] = listed
        self._tell(listed)

    def remove(self, assistant_id: str) -> None:
        """Know an assistant no longer."""
        self._listed.pop(assistant_id, None)

    def find(self, assistant_id: str) -> Listed | None:
        """Return what is known of an assistant; None when nothing is."""
        return self._listed.get(assistant_id)

    def all(self) -> tuple[Listed, ...]:
        """Return every assistant."""
        return tuple(self._listed.values())

    def default(self) -> Assistant:
        """Return the assistant for callers that name none: the first without a problem, else the first.

        Raises:
            NotFoundError: there is no assistant at all.
        """
        ordered = sorted(self._listed.values(), key=lambda listed: listed.problem is not None)
        if not ordered:
            raise NotFoundError("chat.no_assistant")
        return ordered[0].assistant

    def door(self, assistant_id: str) -> Entry:
        """Return what answers for an assistant.

        Raises:
            NotFoundError: no such assistant.
            EngineError: its model version cannot be served.
            BusyError: it is still being prepared.
        """
        listed = self._listed.get(assistant_id)
        if listed is None:
            raise NotFoundError("store.assistant_missing", id=assistant_id)
        entry = self._entry(listed)
        if listed.problem is not None:
            raise EngineError("chat.not_served", listed.assistant.name, reason=listed.problem.message())
        if entry is None:
            raise BusyError("chat.being_prepared", listed.assistant.name, retry_after=_PREPARING_SECONDS)
        return entry

    def explain(self, name: str) -> None:
        """Raise why nothing is served under an assistant's name (the default's when empty); see ``door``.

        Returns only when the name is not an assistant's, or is served after all.
        """
        for listed in self.all():
            if listed.assistant.name == name or not name:
                self.door(listed.assistant.id)
                return

    def view(self, listed: Listed, lang: Language | None = None) -> AssistantView:
        """Return an assistant with its engine's state at this moment, for people."""
        assistant, entry = listed.assistant, self._entry(listed)
        return AssistantView(
            id=assistant.id,
            name=assistant.name,
            greeting=assistant.greeting,
            suggestions=assistant.suggestions,
            system=assistant.system,
            model=listed.model,
            engine=_engine(listed, entry, lang),
        )

    def listen(self, listener: OnChange) -> Callable[[], None]:
        """Call ``listener`` when an assistant or the state of its engine changes; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _entry(self, listed: Listed) -> Entry | None:
        name = listed.assistant.name
        return self.registry.get(name) if name in self.registry.names() else None

    def _engine_changed(self, name: str, _state: EngineState) -> None:
        for listed in self.all():
            if listed.assistant.name == name:
                self._tell(listed)

    def _tell(self, listed: Listed) -> None:
        for listener in tuple(self._listeners):
            listener(listed)


def _held_back(listed: Listed, lang: Language | None) -> str | None:
    if listed.waiting is None:
        return None
    name, reason = listed.assistant.name, listed.waiting.what(lang)
    return EngineError("chat.held_back", name=name, reason=reason).message(lang)


def _engine(listed: Listed, entry: Entry | None, lang: Language | None) -> EngineView:
    if listed.problem is not None:
        detail = listed.problem.message(lang)
        return EngineView(kind=listed.assistant.engine, state="failed", detail=detail, running=0, waiting=0, capacity=0)
    if entry is None:
        return EngineView(kind=listed.assistant.engine, state="loading", detail=None, running=0, waiting=0, capacity=0)
    health = entry.gateway.health()
    return EngineView(
        kind=health.kind,
        state=health.engine.state,
        detail=_held_back(listed, lang) or health.engine.detail,
        running=health.running,
        waiting=health.waiting,
        capacity=health.capacity,
    )

"""Holds an engine's state and tells listeners about its changes. Part of every engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from danlu.errors import EngineError, EngineTimeoutError
from danlu.serving.engine import EngineState, State, StateListener

_log = logging.getLogger(__name__)


class StateBox:
    """The state of one engine; belongs to one event loop."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._listeners: list[StateListener] = []
        self._changed = asyncio.Event()
        self.value = EngineState("stopped")

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change; returns a function that ends it (harmless twice)."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def set(self, state: State, detail: str | None = None, *, restarts: int | None = None) -> None:
        """Change the state and tell everyone who listens."""
        new = EngineState(state, detail, self.value.restarts if restarts is None else restarts)
        if new == self.value:
            return
        self.value = new
        _log.info("engine of %s: %s%s", self._model_id, state, f" ({detail})" if detail else "")
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in tuple(self._listeners):
            listener(new)

    async def wait_ready(self, timeout: float) -> None:
        """Wait for ``ready``.

        Raises:
            EngineError: failed or stopped.
            EngineTimeoutError: neither in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.value.state != "ready":
                    if self.value.state in {"failed", "stopped"}:
                        raise unavailable(self._model_id, self.value)
                    await self._changed.wait()
        except TimeoutError as error:
            raise EngineTimeoutError(
                "serving.engine_not_ready", model=self._model_id, seconds=round(timeout)
            ) from error


def unavailable(model_id: str, state: EngineState) -> EngineError:
    """Return the error for an engine that will not become ready by itself."""
    if state.state == "failed":
        return EngineError("serving.engine_failed", model=model_id, reason=state.detail or "")
    return EngineError("serving.engine_stopped", model=model_id)

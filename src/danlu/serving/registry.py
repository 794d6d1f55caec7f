"""Which name is answered by which engine; start, replace without a dropped answer, stop. One event loop.

Names whose engine specs are equal share one engine and its queue; versions that differ in their adapter only share a
child (``sharing``). Not for what an assistant is (the database).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from danlu.errors import NotFoundError
from danlu.serving.accounting import Books
from danlu.serving.engine import EngineSpec, EngineState
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.served import ServedModel, make_gateway
from danlu.serving.sharing import Hosts

_log = logging.getLogger(__name__)

_ENGINE_BYTES = 500 * 2**20  # an engine beside its weights: key/value cache, buffers, the interpreter

RegistryListener = Callable[[str, EngineState], None]


@dataclass(frozen=True)
class Entry:
    """A served name and its door."""

    served: ServedModel
    gateway: Gateway


class GatewayRegistry:
    """All served names of this process.

    Attributes:
        books: where the account of every request goes; set before anything is served.

    Args:
        limits: for every gateway.
        drain: seconds that a replaced engine may take for the answers under way.
        books: where the account of every request goes.
    """

    def __init__(self, limits: Limits | None = None, *, drain: float = 600.0, books: Books | None = None) -> None:
        self._limits = limits
        self.books = books
        self._drain = drain
        self._entries: dict[str, Entry] = {}
        self._gateways: dict[EngineSpec, Gateway] = {}
        self._hosts = Hosts()
        self._listeners: list[RegistryListener] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._default: str | None = None
        self._changing = asyncio.Lock()

    def names(self) -> list[str]:
        """Return the served names, in the order they were added."""
        return list(self._entries)

    def get(self, name: str | None = None) -> Entry:
        """Return what is served under ``name``; the default (the first served) when None or empty.

        Raises:
            NotFoundError: nothing is.
        """
        entry = self._entries.get(name or self._default or "")
        if entry is None:
            raise NotFoundError("serving.unknown_model", name=name or "", names=", ".join(self._entries) or "–")
        return entry

    def make_default(self, name: str) -> None:
        """Answer with ``name`` where callers name no model.

        Raises:
            NotFoundError: it is not served.
        """
        self._default = self.get(name).served.name

    def subscribe(self, listener: RegistryListener) -> Callable[[], None]:
        """Call ``listener(name, state)`` when the engine behind a name changes; returns a function that ends it."""
        self._listeners.append(listener)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return end

    async def serve(self, served: ServedModel, *, ready_timeout: float = 600.0) -> Entry:
        """Serve a model under its name.

        A new name is entered at once and its engine starts in the background. A name that is already served keeps
        its old engine until the new one is ready; then new callers get the new one, and the old one is stopped when
        its last answer is done. Where memory does not hold both, the old one ends first, and callers wait meanwhile.

        Raises:
            EngineError: the replacing engine did not become ready; the old one goes on.
        """
        async with self._changing:
            old = self._entries.get(served.name)
            shared = served.spec in self._gateways or self._hosts.holds(served.spec)
            if old is not None and not shared and not _fits_beside(served.spec):
                return await self._in_order(old, served)
            gateway = await self._gateway(served)
            entry = Entry(served, gateway)
            if old is not None and old.gateway is not gateway:
                try:
                    await gateway.wait_ready(ready_timeout)
                except BaseException:
                    await self._release(gateway, drain=0)
                    raise
            self._entries[served.name] = entry
            self._default = self._default or served.name
            if old is not None:
                await self._release(old.gateway, drain=self._drain)
            self._tell(gateway, gateway.engine.state)
            return entry

    async def _in_order(self, old: Entry, served: ServedModel) -> Entry:
        """Replace an engine by one that does not fit beside it; new callers wait for the new one from now on."""
        _log.warning("memory does not hold two engines: %s changes over one after the other", served.name)
        gateway = make_gateway(served, self._limits, self.books, self._hosts)
        gateway.expect()
        self._gateways[served.spec] = gateway
        gateway.subscribe(lambda state, door=gateway: self._tell(door, state))  # type: ignore[misc]
        entry = self._entries[served.name] = Entry(served, gateway)
        await self._release(old.gateway, drain=self._drain)
        await asyncio.gather(*self._retiring)
        await gateway.start()
        self._tell(gateway, gateway.engine.state)
        return entry

    async def remove(self, name: str) -> None:
        """Serve a name no longer; its engine is stopped when its last answer is done.

        Raises:
            NotFoundError: it is not served.
        """
        async with self._changing:
            entry = self.get(name)
            del self._entries[entry.served.name]
            if self._default == entry.served.name:
                self._default = next(iter(self._entries), None)
            await self._release(entry.gateway, drain=self._drain)

    async def close(self) -> None:
        """Stop every engine now."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        self._entries.clear()
        gateways, self._gateways = list(self._gateways.values()), {}
        await asyncio.gather(*(gateway.stop() for gateway in gateways))

    async def _gateway(self, served: ServedModel) -> Gateway:
        gateway = self._gateways.get(served.spec)
        if gateway is None:
            gateway = make_gateway(served, self._limits, self.books, self._hosts)
            self._gateways[served.spec] = gateway
            gateway.subscribe(lambda state, door=gateway: self._tell(door, state))  # type: ignore[misc]
            await gateway.start()
        elif gateway.engine.state.state == "failed":
            await gateway.start()
        return gateway

    async def _release(self, gateway: Gateway, *, drain: float) -> None:
        """Stop a gateway that no name uses any more, in the background."""
        if any(entry.gateway is gateway for entry in self._entries.values()):
            return
        self._gateways = {spec: door for spec, door in self._gateways.items() if door is not gateway}
        task = asyncio.create_task(self._retire(gateway, drain), name=f"retire {gateway.model_id}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @staticmethod
    async def _retire(gateway: Gateway, drain: float) -> None:
        try:
            await gateway.stop(drain)
        except asyncio.CancelledError:
            await gateway.stop()
            raise

    def _tell(self, gateway: Gateway, state: EngineState) -> None:
        for name, entry in self._entries.items():
            if entry.gateway is gateway:
                for listener in tuple(self._listeners):
                    listener(name, state)


def _fits_beside(spec: EngineSpec) -> bool:
    """Say whether an engine's weights fit into the memory that is free, beside what runs."""
    if spec.weights is None or not spec.weights.exists():
        return True
    files = [spec.weights] if spec.weights.is_file() else list(spec.weights.glob("*.safetensors"))
    return psutil.virtual_memory().available > sum(file.stat().st_size for file in files) + _ENGINE_BYTES

"""Everything that a running server consists of, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from danlu.accounts.keys import KeyRing
from danlu.chat.conversations import Conversations
from danlu.chat.directory import Directory, Listed
from danlu.chat.hub import Hub
from danlu.chat.pool import Pool
from danlu.chat.rooms import Rooms
from danlu.chat.streams import Streams
from danlu.chat.wire import ModelView
from danlu.errors import DanluError
from danlu.models.versions import load_version
from danlu.server.books import BookKeeper
from danlu.serving.accounting import AnswerRecord, Books
from danlu.serving.gateway import Limits
from danlu.serving.metrics import Metrics
from danlu.serving.registry import GatewayRegistry
from danlu.serving.served import ServedModel
from danlu.settings import Home, Settings
from danlu.store.home_lock import HomeLock
from danlu.store.records import Assistant
from danlu.store.store import Store

if TYPE_CHECKING:
    from danlu.server.ws import Socket
    from danlu.server.ws_answers import Answers

log = logging.getLogger(__name__)

_FOLLOW_SECONDS: Final = 1.0
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class Services:
    """The rooms of one server, between ``start`` and ``stop``.

    Attributes:
        settings: of the process.
        home: the folder that is served.
        hosts: names under which the server may be addressed.
        registry: engines by assistant name.
        metrics: what is counted.
        sockets: open WebSockets of web pages.
        connections: open WebSockets of back ends.

    Args:
        settings: of the process.
        registry: engines; a fresh registry when None.
        hosts: more names under which the server may be addressed.
    """

    store: Store
    keys: KeyRing
    directory: Directory
    hub: Hub
    streams: Streams
    conversations: Conversations

    def __init__(
        self, settings: Settings, registry: GatewayRegistry | None = None, hosts: tuple[str, ...] = ()
    ) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self.hosts = (*LOOPBACK_NAMES, *hosts)
        self._books: BookKeeper | None = None
        self.registry = registry or GatewayRegistry(Limits(queue=settings.queue))
        self.registry.books = Books(self._enter, keep_texts=settings.log_prompts)
        self.metrics = Metrics(self.registry)
        self.sockets: set[Socket] = set()
        self.connections: set[Answers] = set()
        self._lock = HomeLock(settings.home)
        self._preparing: asyncio.Task[None] | None = None
        self._started = False

    def claim(self) -> None:
        """Claim the home for this process; ``stop`` gives it free.

        Raises:
            ConflictError: another program works in this home.
            MachineError: the home cannot be written.
        """
        self.home.make()
        self._lock.acquire()

    async def start(self) -> None:
        """Claim the home, open the database, and begin to start engines; returns before these are ready.

        Raises:
            ConflictError: another program works in this home.
            MachineError: the home cannot be written.
            StoreError: the database cannot be used.
        """
        if not self._lock.held:
            self.claim()
        self.store = await asyncio.to_thread(Store.open, self.home, self.settings.database_url)
        self.keys = KeyRing(self.store)
        self._books = BookKeeper(self.metrics, self.keys, self.home.logs)
        pool = Pool()
        rooms = Rooms(self.store, pool)
        self.hub = Hub()
        self.directory = Directory(self.registry)
        self.directory.listen(self.hub.engine)
        self.streams = Streams(self.store, pool, rooms, self.directory, self.hub)
        self.conversations = Conversations(self.store, pool, rooms, self.streams, self.directory, self.hub)
        self._started = True
        interrupted = await pool.run(self.store.messages.interrupt_unfinished)
        if interrupted:
            log.warning("%d answers were cut off when the server ended last; their text is kept", interrupted)
        revision = await pool.run(self.store.assistants.revision)
        assistants = await pool.run(self.store.assistants.list)
        for assistant in assistants:
            self.directory.put(Listed(assistant, _unknown_model(assistant)))
        self._preparing = asyncio.create_task(self._prepare(assistants, revision), name="follow assistants")

    async def stop(self) -> None:
        """Interrupt answers, stop engines, close the database and give the home free; harmless twice."""
        if self._started:
            self._started = False
            if self._preparing is not None:
                self._preparing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._preparing
            await self.streams.close()
            await self.registry.close()
            if self._books is not None:
                await self._books.close()
            await asyncio.to_thread(self.store.close)
        self._lock.release()

    def _enter(self, record: AnswerRecord) -> None:
        if self._books is not None:
            self._books.enter(record)

    async def serve_assistant(self, assistant: Assistant) -> None:
        """Read an assistant's version and begin to start its engine; what is wrong then stands in the directory.

        An assistant that is being served goes on as it was until the new engine is ready, and for good when that fails.
        """
        before = self.directory.find(assistant.id)
        going = before is not None and before.problem is None and assistant.name in self.registry.names()
        model = _unknown_model(assistant)
        try:
            model, served = await asyncio.to_thread(_load, self.home, assistant, self.settings.slots)
            if not going:
                self.directory.put(Listed(assistant, model))
            await self.registry.serve(served)
            self.directory.put(Listed(assistant, model))
        except DanluError as error:
            log.warning("assistant %s cannot be served: %s", assistant.name, error)
            if going and before is not None:
                self.directory.put(replace(before, waiting=error))
            else:
                self.directory.put(Listed(assistant, model, error))

    async def _prepare(self, assistants: tuple[Assistant, ...], revision: str) -> None:
        """Serve what there is, then follow what the command line, or another server, changes."""
        for assistant in assistants:
            await self._serve_surely(assistant)
        known = {assistant.id: assistant for assistant in assistants}
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                now = await asyncio.to_thread(self.store.assistants.revision)
                if now == revision:
                    continue
                current = {item.id: item for item in await asyncio.to_thread(self.store.assistants.list)}
            except DanluError as error:
                log.warning("assistants cannot be looked up: %s", error)
                continue
            revision = now
            for gone in set(known) - set(current):
                await self._forget(known.pop(gone))
            for assistant in current.values():
                if known.get(assistant.id) != assistant:
                    known[assistant.id] = assistant
                    await self._serve_surely(assistant)

    async def _serve_surely(self, assistant: Assistant) -> None:
        work = asyncio.create_task(self.serve_assistant(assistant))
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
        failure = None if work.cancelled() else work.exception()
        if failure is not None:
            # A defect with one assistant must not keep the others from being served.
            log.error("assistant %s cannot be served", assistant.name, exc_info=failure)
            self.directory.put(Listed(assistant, _unknown_model(assistant), DanluError("chat.unexpected")))

    async def _forget(self, assistant: Assistant) -> None:
        log.info("assistant %s was removed", assistant.name)
        self.directory.remove(assistant.id)
        if assistant.name in self.registry.names():
            await self.registry.remove(assistant.name)


def _load(home: Home, assistant: Assistant, slots: int) -> tuple[ModelView, ServedModel]:
    folder = home.versions / assistant.version_id
    version = load_version(folder)
    served = ServedModel.from_version(
        folder,
        engine=_engine(assistant, folder),
        name=assistant.name,
        system=assistant.system or None,
        slots=slots,
        log=home.logs / f"engine-{version.id}.log",
    )
    model = ModelView(version_id=version.id, name=version.name, base=version.base.name)
    return model, replace(served, defaults=assistant.generation)


def _engine(assistant: Assistant, folder: Path) -> str:
    """Decide ``auto``: llama.cpp when there is a GGUF export, transformers otherwise."""
    if assistant.engine != "auto":
        return assistant.engine
    return "llamacpp" if load_version(folder).export("gguf") is not None else "transformers"


def _unknown_model(assistant: Assistant) -> ModelView:
    return ModelView(version_id=assistant.version_id, name=assistant.version_id, base="")

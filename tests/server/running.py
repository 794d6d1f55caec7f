"""A real server in a thread, on a free port, with a scripted engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from danlu.chat.assistants import ensure_assistant
from danlu.chat.directory import Listed
from danlu.chat.wire import ModelView
from danlu.models.versions import BaseModelRef, ModelVersion
from danlu.server.run import serve
from danlu.server.services import Services
from danlu.serving.gateway import Limits
from danlu.serving.served import ServedModel
from danlu.settings import Settings
from danlu.store.records import Assistant
from danlu.store.store import Store
from tests.chat.engines import Script, ScriptedRegistry, served_model

VERSION = ModelVersion(id="Danlu-1", name="danlu", created_at="2026-01-01T00:00:00Z", base=BaseModelRef(name="tiny"))


class ScriptedServices(Services):
    """Services whose one assistant is answered by a scripted engine."""

    def __init__(self, settings: Settings, script: Script, served: ServedModel, limits: Limits | None = None) -> None:
        super().__init__(settings, ScriptedRegistry(script, limits))
        self.script = script
        self._served = served

    async def start(self) -> None:
        with Store.open(self.home, self.settings.database_url) as store:
            ensure_assistant(store, VERSION, self._served.name, "Hi!", ["Who are you?"])
        await super().start()
        while self._served.name not in self.registry.names():
            await asyncio.sleep(0.01)

    async def serve_assistant(self, assistant: Assistant) -> None:
        model = ModelView(version_id=VERSION.id, name=VERSION.name, base=VERSION.base.name)
        self.directory.put(Listed(assistant, model))
        await self.registry.serve(self._served)


@dataclass
class Running:
    """A server that runs; ``call`` does things in its event loop."""

    url: str
    services: Services
    loop: asyncio.AbstractEventLoop

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws") + "/ws"

    @property
    def netloc(self) -> str:
        return self.url.removeprefix("http://")

    def call(self, function, *arguments):
        async def work():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(10)


@contextmanager
def running(services: Services, host: str = "127.0.0.1") -> Iterator[Running]:
    """Serve until the code inside ends, then stop as a signal would."""
    ready = threading.Event()
    state: dict = {}

    def thread() -> None:
        async def main() -> None:
            state["loop"] = asyncio.get_running_loop()
            state["stop"] = asyncio.Event()

            def on_ready(url: str) -> None:
                state["url"] = url
                ready.set()

            await serve(services, host, 0, on_ready, stop=state["stop"])

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            state["error"] = error
        finally:
            ready.set()

    worker = threading.Thread(target=thread, name="server")
    worker.start()
    try:
        assert ready.wait(30)
        if "error" in state:
            raise state["error"]
        yield Running(state["url"], services, state["loop"])
    finally:
        if "error" not in state:
            state["loop"].call_soon_threadsafe(state["stop"].set)
        worker.join(30)
        assert not worker.is_alive(), "the server did not end"
    if "error" in state:
        raise state["error"]


def scripted(home: Path, script: Script | None = None, limits: Limits | None = None, **changes) -> ScriptedServices:
    """Return services over ``home`` with a scripted engine."""
    return ScriptedServices(Settings(home=home), script or Script(), served_model(**changes), limits)

"""The engine that is somebody else's server: vLLM, SGLang, Ray Serve, Ollama, another Danlu.

Its state is probed, never assumed. Its key comes from the environment, never from a file or a command line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from danlu.errors import UsageError
from danlu.serving.engine import (
    EmbeddingRequest,
    Embeddings,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    EngineSpec,
    EngineState,
    StateListener,
)
from danlu.serving.states import StateBox, unavailable
from danlu.serving.wire_client import WireClient, cancel_surely

_PROBE_SECONDS = 10.0


class OpenAIEngine:
    """An engine behind a base URL that ends in ``/v1``.

    Args:
        spec: ``spec.url`` is the base URL; ``spec.key_variable`` names the variable that holds the key.
        probe_every: seconds between two looks whether the server is there.

    Raises:
        UsageError: the URL is missing or not HTTP.
    """

    def __init__(self, spec: EngineSpec, *, probe_every: float = _PROBE_SECONDS) -> None:
        if spec.url is None or not spec.url.startswith(("http://", "https://")):
            raise UsageError("serving.unknown_engine", engine=f"openai:{spec.url or ''}")
        self.spec = spec
        self._url = spec.url if spec.url.rstrip("/").endswith("/v1") else spec.url.rstrip("/") + "/v1"
        self._probe_every = probe_every
        self._states = StateBox(spec.model_id)
        self._client: WireClient | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        """Return where the engine stands."""
        return self._states.value

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change of state; returns a function that ends it."""
        return self._states.subscribe(listener)

    def expect(self) -> None:
        """Say ``loading`` before the start, so that callers wait."""
        self._states.set("loading")

    async def start(self) -> None:
        """Begin to look for the server; harmless when begun already."""
        if self._task is not None:
            return
        key = os.environ.get(self.spec.key_variable)
        self._client = WireClient(self._url, key=key, model=self.spec.model_id, wire=self.spec.wire, own=False)
        self._states.set("loading")
        self._task = asyncio.create_task(self._watch(self._client), name=f"watch {self._url}")

    async def stop(self) -> None:
        """Look no more; the server itself is not ours to stop."""
        task, self._task = self._task, None
        if task is not None:
            await cancel_surely(task)
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        self._states.set("stopped")

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the server answers; see ``Engine.wait_ready``."""
        await self._states.wait_ready(timeout)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate; see ``Engine.stream``."""
        if self._client is None:
            raise unavailable(self.spec.model_id, self.state)
        async with aclosing(self._client.stream(request)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts; see ``Engine.embed``."""
        if self._client is None:
            raise unavailable(self.spec.model_id, self.state)
        return await self._client.embed(request)

    async def _watch(self, client: WireClient) -> None:
        while True:
            if await client.healthy(timeout=_PROBE_SECONDS):
                self._states.set("ready")
            else:
                self._states.set("loading", f"no answer from {self._url}")
            await asyncio.sleep(self._probe_every if self.state.state == "ready" else min(1.0, self._probe_every))

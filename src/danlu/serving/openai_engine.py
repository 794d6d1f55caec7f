"""The engine that is somebody else's server: vLLM, SGLang, Ray Serve, Ollama, another Danlu.

Its state is probed, never assumed. Its key comes from the environment, never from a file or a command line.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from danlu.errors import EngineError, UsageError
from danlu.i18n import t
from danlu.models.messages import Message
from danlu.serving.engine import (
    EmbeddingRequest,
    Embeddings,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    EngineSpec,
    EngineState,
    Sampling,
    StateListener,
)
from danlu.serving.states import StateBox, unavailable
from danlu.serving.wire_client import WireClient, cancel_surely

_PROBE_SECONDS = 10.0
_PROOF_SECONDS = 60.0
_TOKEN_SECONDS = 60  # a server that wakes up for the first question may load its model for so long


class OpenAIEngine:
    """An engine behind a base URL that ends in ``/v1``.

    Args:
        spec: ``spec.url`` is the base URL, with ``#NAME`` behind it where the server has several models;
            ``spec.key_variable`` names the variable that holds the key.
        probe_every: seconds between two looks whether the server is there.
        plain: ask for the model by ``spec.model_id`` and for nothing that nobody wants: tokens may cost money there.

    Raises:
        UsageError: the URL is missing or not HTTP.
    """

    def __init__(self, spec: EngineSpec, *, probe_every: float = _PROBE_SECONDS, plain: bool = False) -> None:
        self._plain = plain
        if spec.url is None or not spec.url.startswith(("http://", "https://")):
            raise UsageError("serving.unknown_engine", engine=f"openai:{spec.url or ''}")
        self.spec = spec
        base, _, self._wanted = spec.url.partition("#")
        self._url = base if base.rstrip("/").endswith("/v1") else base.rstrip("/") + "/v1"
        self._probe_every = probe_every
        self._states = StateBox(spec.model_id)
        self._client: WireClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._proved = -math.inf

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
                # A token to somebody is as good as one to a probe, which would wait behind a long answer.
                self._proved = time.monotonic()
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts; see ``Engine.embed``."""
        if self._client is None:
            raise unavailable(self.spec.model_id, self.state)
        return await self._client.embed(request)

    async def _watch(self, client: WireClient) -> None:
        while True:
            problem = await self._problem(client)
            if problem is None:
                self._states.set("ready")
            else:
                self._states.set("loading", problem)
            await asyncio.sleep(self._probe_every if problem is None else min(1.0, self._probe_every))

    async def _problem(self, client: WireClient) -> str | None:
        """Return why the server is of no use; None when it answers.

        A list of models proves little: a server lists them while its model is still loading, or when its workers are
        gone (vllm #16259). So a token is asked for when it seemed away, and from time to time while nobody else asks.
        """
        names = await client.models(timeout=_PROBE_SECONDS)
        if names is None:
            return t("serving.no_answer_from", url=self._url)
        if self._plain:
            return None
        if self.spec.adapter is not None:
            return await self._with_adapter(client, names) or await self._no_token(client)
        if self._wanted and names and self._wanted not in names:
            return t("serving.no_such_model_at", url=self._url, name=self._wanted, names=", ".join(names))
        # By the name that was asked for; else by the only one that the server has; else by ours.
        client.model = self._wanted or (names[0] if len(names) == 1 else self.spec.model_id)
        if len(names) > 1 and client.model not in names:
            return t("serving.several_models_at", url=self._url, names=", ".join(names))
        return await self._no_token(client)

    async def _with_adapter(self, client: WireClient, names: list[str]) -> str | None:
        """Let the server load the adapter under our name, unless it has; return why it did not."""
        client.model = self.spec.model_id
        if self.spec.model_id in names:
            return None
        refusal = await client.load_adapter(self.spec.model_id, str(self.spec.adapter), timeout=_TOKEN_SECONDS)
        if refusal is None:
            return None
        return t("serving.adapter_not_loaded", url=self._url, reason=refusal)

    async def _no_token(self, client: WireClient) -> str | None:
        """Return why the server gives no token; None when it gave one lately."""
        now = time.monotonic()
        if self.state.state == "ready" and now - self._proved < _PROOF_SECONDS:
            return None
        ids = () if self.spec.wire == "chat" else (1,)
        probe = EngineRequest(ids, (Message("user", "Hi"),), Sampling(max_tokens=1, temperature=0.0, top_p=1.0))
        try:
            async with asyncio.timeout(_TOKEN_SECONDS), aclosing(client.stream(probe)) as events:
                async for _ in events:
                    pass
        except (EngineError, TimeoutError) as error:
            reason = (
                error.what() if isinstance(error, EngineError) else t("serving.no_token_in", seconds=_TOKEN_SECONDS)
            )
            return f"{self._url}: {reason}"
        self._proved = time.monotonic()
        return None

"""Several versions on one base share the child that holds the base; adapters change from request to request.

For the ``transformers`` engine: its child lays another adapter over the weights that it has in a fraction of the time
that loading them takes. Versions share when base, context and tokenizer are the same; an adapter with rows of its own
for new tokens changes the shape of the base and keeps a child of its own. Not for llama.cpp, whose files hold base and
adapter in one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from danlu.errors import EngineError
from danlu.files import sha256_of
from danlu.serving.admission import Admission
from danlu.serving.engine import (
    EmbeddingRequest,
    Embeddings,
    Engine,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    EngineSpec,
    EngineState,
    Sampling,
    StateListener,
)
from danlu.serving.states import StateBox
from danlu.serving.supervisor import ChildEngine
from danlu.serving.wire_client import cancel_surely

_ADAPTER_CONFIG: Final = "adapter_config.json"
_TOKENIZER: Final = "tokenizer.json"
_Key = tuple[EngineSpec, str]


@dataclass
class Host:
    """A child with a base, and those who use it.

    Attributes:
        engine: the child; it is asked with an adapter.
        admission: one queue for all versions, since the child makes one answer at a time.
        users: engines that were started and not stopped.
    """

    engine: ChildEngine
    admission: Admission
    users: set[AdapterEngine] = field(default_factory=set)


class Hosts:
    """The children of this process that hold a base for several versions."""

    def __init__(self) -> None:
        self._hosts: dict[_Key, Host] = {}

    def engine(self, spec: EngineSpec, queue: int) -> tuple[Engine, Admission]:
        """Return an engine over a shared child, and the queue before it.

        Args:
            spec: for which ``can_share`` holds.
            queue: callers that may wait, if the child is new.
        """
        key = _key(spec)
        host = self._hosts.get(key)
        if host is None:
            base = replace(spec, adapter=None)
            host = self._hosts[key] = Host(ChildEngine(base), Admission(spec.slots, queue))
        return AdapterEngine(spec, host, lambda: self._leave(key)), host.admission

    def holds(self, spec: EngineSpec) -> bool:
        """Say whether the base of ``spec`` is in memory already."""
        return can_share(spec) and _key(spec) in self._hosts

    def _leave(self, key: _Key) -> None:
        self._hosts.pop(key, None)


class AdapterEngine:
    """An engine that is one adapter over a shared child; see ``Engine``. Ready when it has given a token.

    Args:
        spec: with the adapter; None in it for the base alone.
        host: the child.
        forget: called when the last user has stopped.
    """

    def __init__(self, spec: EngineSpec, host: Host, forget: Callable[[], None]) -> None:
        self.spec = spec
        self._host = host
        self._forget = forget
        self._states = StateBox(spec.model_id)
        self._unfollow: Callable[[], None] | None = None
        self._proof: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        """Return where the child stands, and whether it works with this adapter."""
        return self._states.value

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change of state; returns a function that ends it."""
        return self._states.subscribe(listener)

    def expect(self) -> None:
        """Say ``loading`` before the start, so that callers wait."""
        self._states.set("loading")

    async def start(self) -> None:
        """Begin to start the child, unless it runs; a new attempt after ``failed``."""
        self._host.users.add(self)
        if self._unfollow is None:
            self._unfollow = self._host.engine.subscribe(self._follow)
        await self._host.engine.start()
        self._follow(self._host.engine.state)

    async def stop(self) -> None:
        """Leave the child; the last one ends it."""
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        proof, self._proof = self._proof, None
        if proof is not None:
            await cancel_surely(proof)
        self._states.set("stopped")
        if self in self._host.users:
            self._host.users.discard(self)
            if not self._host.users:
                self._forget()
                await self._host.engine.stop()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the child answers with this adapter; see ``Engine.wait_ready``."""
        await self._states.wait_ready(timeout)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """Generate with this adapter; see ``Engine.stream``."""
        async with aclosing(self._host.engine.stream(replace(request, adapter=self.spec.adapter))) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts with this adapter; see ``Engine.embed``."""
        return await self._host.engine.embed(replace(request, adapter=self.spec.adapter))

    def _follow(self, state: EngineState) -> None:
        """Take over the child's state; when it is ready, let it prove itself with this adapter first."""
        if state.state != "ready":
            self._states.set(state.state, state.detail, restarts=state.restarts)
        elif self.state.state != "ready" and (self._proof is None or self._proof.done()):
            self._states.set("loading", restarts=state.restarts)
            self._proof = asyncio.create_task(self._prove(), name=f"adapter of {self.spec.model_id}")

    async def _prove(self) -> None:
        probe = EngineRequest((1,), (), Sampling(max_tokens=1, temperature=0.0, top_p=1.0))
        try:
            async with aclosing(self.stream(probe)) as events:
                async for _ in events:
                    pass
        except EngineError as error:
            if self._host.engine.state.state == "ready":
                self._states.set("failed", error.what())
            return
        self._states.set("ready")


def can_share(spec: EngineSpec) -> bool:
    """Say whether an engine can be one adapter among several over its base."""
    if spec.kind != "transformers" or spec.tokenizer is None or not (spec.tokenizer / _TOKENIZER).is_file():
        return False
    if spec.adapter is None:
        return True
    config = spec.adapter / _ADAPTER_CONFIG
    if not config.is_file():
        return False  # its own child says what is missing
    return not json.loads(config.read_text(encoding="utf-8")).get("trainable_token_indices")


def _key(spec: EngineSpec) -> _Key:
    assert spec.tokenizer is not None
    same = replace(spec, adapter=None, model_id="", tokenizer=Path(), log=None)
    return same, sha256_of(spec.tokenizer / _TOKENIZER)

"""An engine in this process with a script instead of a model, behind the real gateway and registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from danlu.errors import DanluError
from danlu.models.messages import Message
from danlu.models.versions import GenerationDefaults
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
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.registry import GatewayRegistry
from danlu.serving.served import ServedModel
from danlu.serving.states import StateBox


@dataclass
class Script:
    """What the engine says, and what tests see of it.

    Attributes:
        pieces: the words of every answer.
        gate: an answer waits here before each piece; set it to let everything run.
        fail_after: raise ``error`` after so many pieces.
        requests: what was asked.
        cancelled: answers whose generator was closed before its end.
    """

    pieces: Sequence[str] = ("Hello", ", ", "world", "!")
    gate: asyncio.Semaphore | None = None
    pause: float = 0.0
    fail_after: int | None = None
    error: DanluError | None = None
    requests: list[EngineRequest] = field(default_factory=list)
    cancelled: int = 0


class ScriptedEngine:
    """Implements ``danlu.serving.engine.Engine``."""

    def __init__(self, spec: EngineSpec, script: Script) -> None:
        self.spec = spec
        self._script = script
        self._states = StateBox(spec.model_id)

    @property
    def state(self) -> EngineState:
        return self._states.value

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        return self._states.subscribe(listener)

    def expect(self) -> None:
        self._states.set("loading")

    async def start(self) -> None:
        self._states.set("loading")
        self._states.set("ready")

    async def stop(self) -> None:
        self._states.set("stopped")

    async def wait_ready(self, timeout: float) -> None:
        await self._states.wait_ready(timeout)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        script = self._script
        script.requests.append(request)
        try:
            for count, text in enumerate(script.pieces):
                if script.fail_after == count and script.error is not None:
                    raise script.error
                if script.gate is not None:
                    await script.gate.acquire()
                elif script.pause:
                    await asyncio.sleep(script.pause)
                yield EnginePiece(text, tokens=1)
            yield EngineFinish("stop")
        except (asyncio.CancelledError, GeneratorExit):
            script.cancelled += 1
            raise

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        return Embeddings(tuple((1.0, 0.0) for _ in request.texts), tokens=len(request.texts))


class WordPrompts:
    """One token a character: enough to see what fits."""

    stop_ids = frozenset({0})
    stop_strings: tuple[str, ...] = ()

    call_syntax = None

    def text_ids(self, text: str) -> list[int]:
        return [1] * len(text)

    def prompt_ids(self, messages: Sequence[Message], tools: str = "") -> list[int]:
        return [1] * sum(len(message.content) for message in messages)

    def opens_thinking(self, messages: Sequence[Message], tools: str = "") -> bool:
        return False


class ScriptedRegistry(GatewayRegistry):
    """The real registry with scripted engines."""

    def __init__(self, script: Script, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.script = script

    async def _gateway(self, served: ServedModel) -> Gateway:
        gateway = Gateway(ScriptedEngine(served.spec, self.script), WordPrompts(), self._limits, books=self.books)
        gateway.subscribe(lambda state: self._tell(gateway, state))
        await gateway.start()
        return gateway


def served_model(name: str = "Danlu", *, slots: int = 4, context: int = 2048, **changes: Any) -> ServedModel:
    """Return a served model without files."""
    spec = EngineSpec(kind="transformers", model_id=f"{name}-1", slots=slots, context=context)
    return ServedModel(
        name=name,
        version_id=f"{name}-1",
        version_name=name.lower(),
        base="tiny",
        spec=spec,
        prompts=WordPrompts(),
        defaults=changes.pop("defaults", GenerationDefaults()),
        **changes,
    )

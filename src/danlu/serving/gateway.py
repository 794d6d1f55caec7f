"""The gateway of one model version: everything between a caller's messages and an engine's raw text.

It renders the prompt once, the same for every engine; admits a bounded number of callers; watches the clock; stops
the engine's work when the caller goes away; separates thinking from answer and applies stop strings. One event loop.
Not for HTTP (``api`` and the server's routes) and not for users and quotas.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from danlu.errors import DanluError, EngineTimeoutError, TooLargeError, UsageError
from danlu.models.messages import Message
from danlu.serving.accounting import Account, Books
from danlu.serving.admission import Admission, Ticket
from danlu.serving.answer import AnswerBuilder
from danlu.serving.engine import (
    EmbeddingRequest,
    Embeddings,
    Engine,
    EngineFinish,
    EnginePiece,
    EngineRequest,
    EngineState,
    Finish,
    GatewayEvent,
    GenerationRequest,
    Origin,
    Queued,
    Started,
    StateListener,
)
from danlu.serving.prompting import Prepared, PromptFormat, prepare

# No tokenizer in use has more characters a token than this on text that people write; longer inputs are refused
# before they are tokenised, which would take seconds.
_CHARACTERS_A_TOKEN = 64


@dataclass(frozen=True)
class Limits:
    """Bounds of one gateway; all times in seconds.

    Attributes:
        queue: callers that may wait beyond those that run.
        first_token: from the slot to the first token; reading a long prompt on a CPU takes minutes.
        stall: without any sign of life from the engine once it has begun.
        total: from the slot to the end of the answer.
        ready: how long an admitted caller waits for an engine that is loading.
    """

    queue: int = 16
    first_token: float = 300.0
    stall: float = 60.0
    total: float = 1800.0
    ready: float = 120.0


@dataclass(frozen=True)
class GatewayHealth:
    """A gateway's state at this moment."""

    model_id: str
    kind: str
    engine: EngineState
    running: int
    waiting: int
    capacity: int
    queue: int
    answers: int
    tokens: int


class Gateway:
    """The one door to an engine.

    Args:
        engine: not started yet; the gateway owns it.
        prompts: renders messages; None only for an engine on the ``chat`` wire, which renders itself.
        limits: queue and times.
        encoder: text → token ids without a template, for callers who write prompts themselves; None when the engine
            does not take token ids.
        books: where the account of every request goes.
        admission: the queue, where several gateways stand before one child; None for one of its own.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: PromptFormat | None,
        limits: Limits | None = None,
        *,
        encoder: Callable[[str], Sequence[int]] | None = None,
        books: Books | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.engine = engine
        self.prompts = prompts
        self._encoder = encoder
        self._books = books
        self.limits = limits or Limits()
        self._admission = admission or Admission(engine.spec.slots, self.limits.queue)
        self._rendering = asyncio.Lock()  # a tokenizer object is not for two threads at once
        self._idle = asyncio.Event()
        self._idle.set()
        self._answers = 0
        self._tokens = 0

    @property
    def model_id(self) -> str:
        """Return the name the model is served under."""
        return self.engine.spec.model_id

    def expect(self) -> None:
        """Let callers wait for an engine that will be started soon."""
        self.engine.expect()

    async def start(self) -> None:
        """Begin to start the engine; does not wait until it is ready."""
        await self.engine.start()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the engine answers; see ``Engine.wait_ready`` for the errors."""
        await self.engine.wait_ready(timeout)

    async def stop(self, drain: float = 0.0) -> None:
        """Stop the engine, after waiting at most ``drain`` seconds for answers under way."""
        if drain > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), drain)
        await self.engine.stop()

    def subscribe(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at every change of the engine's state; returns a function that ends it."""
        return self.engine.subscribe(listener)

    def health(self) -> GatewayHealth:
        """Return the state at this moment; never waits for anything."""
        return GatewayHealth(
            model_id=self.model_id,
            kind=self.engine.spec.kind,
            engine=self.engine.state,
            running=self._admission.running,
            waiting=self._admission.waiting,
            capacity=self._admission.slots,
            queue=self.limits.queue,
            answers=self._answers,
            tokens=self._tokens,
        )

    async def prompt_ids(self, messages: Sequence[Message], tools: str = "") -> tuple[int, ...]:
        """Render a conversation as the engine will see it; empty for an engine that renders itself.

        Raises:
            TooLargeError: longer than the context, so that no answer would fit.
            ModelError: the template refuses the conversation or would leave out a part of it.
        """
        prompts = self.prompts
        self._check_length(sum(len(message.content) for message in messages) + len(tools))
        if prompts is None:
            return ()
        async with self._rendering:
            ids = tuple(await asyncio.to_thread(prompts.prompt_ids, messages, tools))
        self._check_room(ids)
        return ids

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a prompt without a chat template.

        Raises:
            TooLargeError: longer than the context.
            UsageError: this engine takes conversations only.
        """
        if self._encoder is None:
            raise UsageError("serving.no_raw_prompts", model=self.model_id)
        self._check_length(len(text))
        async with self._rendering:
            ids = tuple(await asyncio.to_thread(self._encoder, text))
        self._check_room(ids)
        return ids

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GatewayEvent, None]:
        """Answer a request: any number of ``Queued``, ``Started``, any number of ``TextPiece``, ``Finish``.

        Close the generator (``contextlib.aclosing``) or cancel the task that reads it, and the engine stops working on
        the request; its slot is given to the next caller.

        Raises:
            TooLargeError: the prompt leaves no room for an answer.
            UsageError: this model or its engine cannot give the answer the form that was asked for.
            BusyError: the queue is full (raised before the first event).
            EngineError: the engine is down or broke off.
            EngineTimeoutError: no first token, no sign of life, or no end in time.
        """
        question = _question(request) if self._books is not None and self._books.keep_texts else None
        account = Account(request.origin, self.model_id, self.engine.spec.kind, question)
        try:
            async with aclosing(self._generate(request, account)) as events:
                async for event in events:
                    yield event
        except DanluError as error:
            account.failed(error)
            raise
        finally:
            if self._books is not None:
                self._books.enter(account.record())

    async def embed(self, texts: Sequence[str], origin: Origin) -> Embeddings:
        """Return the vectors of texts; they take a place in the queue as an answer does.

        Raises:
            TooLargeError: a text is longer than the context.
            BusyError: the queue is full.
            EngineError: the engine is down, or cannot do this.
            EngineTimeoutError: no answer in time.
        """
        account = Account(origin, self.model_id, self.engine.spec.kind)
        try:
            ids = () if self._encoder is None else tuple([await self.encode(text) for text in texts])
            made = await self._embed(EmbeddingRequest(tuple(texts), ids, origin.request_id), account)
        except DanluError as error:
            account.failed(error)
            raise
        else:
            account.finished(Finish("stop", made.tokens, 0, 0, 0.0, None, None))
            return made
        finally:
            if self._books is not None:
                self._books.enter(account.record())

    async def _embed(self, request: EmbeddingRequest, account: Account) -> Embeddings:
        ticket = self._admission.enter()
        self._idle.clear()
        begun, finished = time.monotonic(), False
        try:
            while ticket.position > 0:
                await ticket.moved()
            await self.engine.wait_ready(self.limits.ready)
            begun = time.monotonic()
            account.started(sum(len(ids) for ids in request.ids))
            try:
                async with asyncio.timeout(self.limits.first_token):
                    made = await self.engine.embed(request)
            except TimeoutError as error:
                seconds = round(self.limits.first_token)
                raise EngineTimeoutError("serving.engine_silent", model=self.model_id, seconds=seconds) from error
            finished = True
            return made
        finally:
            self._leave(ticket, time.monotonic() - begun if finished else None)

    async def _generate(self, request: GenerationRequest, account: Account) -> AsyncGenerator[GatewayEvent, None]:
        ticket = self._admission.enter()  # first of all: whoever is turned away is turned away at once
        begun, finished = time.monotonic(), False
        self._idle.clear()
        try:
            prepared = await self._prepare(request)
            told = 0
            while (place := ticket.position) > 0:
                if place != told:  # the queue may have moved while the prompt was written; a place is told once
                    told = place
                    yield Queued(place, self._admission.eta(place))
                await ticket.moved()
            await self.engine.wait_ready(self.limits.ready)
            begun = time.monotonic()
            account.started(len(prepared.request.prompt_ids))
            yield Started(len(prepared.request.prompt_ids))
            async with aclosing(self._run(prepared, account)) as events:
                async for event in events:
                    if isinstance(event, Finish):
                        finished = True
                        account.finished(event)
                    yield event
        finally:
            self._leave(ticket, time.monotonic() - begun if finished else None)

    async def _run(self, prepared: Prepared, account: Account) -> AsyncGenerator[GatewayEvent, None]:
        request = prepared.request
        builder = AnswerBuilder(
            prompt_tokens=len(request.prompt_ids),
            thinking_opened=prepared.thinking_opened,
            # Our own engines end at the right tokens by themselves, and the text of a turn's end may be quoted.
            turn_ends=self.prompts.stop_strings if self.prompts and self.engine.spec.kind == "openai" else (),
            stops=request.sampling.stop,
            calls=prepared.calls,
            given=prepared.given,
        )
        async with aclosing(self._watched(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, EnginePiece):
                    text = builder.add(piece)
                    self._tokens += piece.tokens
                    account.generated(piece.tokens)
                    if text is not None:
                        account.said(text)
                        yield text
                    if not builder.ended:
                        continue
                rest = builder.close()
                if rest is not None:
                    account.said(rest)
                    yield rest
                self._answers += 1
                yield builder.finish(piece if isinstance(piece, EngineFinish) else None)
                return

    async def _watched(self, request: EngineRequest) -> AsyncGenerator[EnginePiece | EngineFinish, None]:
        """The engine's stream under the three clocks."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.total
        first = loop.time() + self.limits.first_token
        begun = alive = False
        async with aclosing(self.engine.stream(request)) as pieces:
            while True:
                stall = loop.time() + self.limits.stall
                # Before any sign of life only the first-token clock runs: not every engine reports its prefill.
                deadline = min(end, first if not alive else stall, first if not begun else end)
                try:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(pieces, None)
                except TimeoutError as error:
                    key = "serving.engine_too_long" if deadline == end else "serving.engine_silent"
                    limit = self.limits.total if deadline == end else self.limits.first_token
                    if deadline == stall:
                        limit = self.limits.stall
                    raise EngineTimeoutError(key, model=self.model_id, seconds=round(limit)) from error
                if piece is None:
                    return
                alive = True
                begun = begun or (isinstance(piece, EnginePiece) and piece.tokens > 0)
                yield piece

    async def _prepare(self, request: GenerationRequest) -> Prepared:
        spec, prompts = self.engine.spec, self.prompts
        if request.prompt_ids is not None and spec.wire == "chat":
            raise UsageError("serving.no_raw_prompts", model=self.model_id)
        if request.prompt_ids is None:
            self._check_length(sum(len(message.content) for message in request.messages) + len(request.form.tools))
        async with self._rendering:
            prepared = await asyncio.to_thread(prepare, request, prompts, spec)
        self._check_room(prepared.request.prompt_ids)
        return prepared

    def _check_length(self, characters: int) -> None:
        context = self.engine.spec.context
        if characters > context * _CHARACTERS_A_TOKEN:
            raise TooLargeError("serving.prompt_too_long", tokens=f"> {context}", context=context)

    def _check_room(self, ids: Sequence[int]) -> None:
        if len(ids) >= self.engine.spec.context:
            raise TooLargeError("serving.prompt_too_long", tokens=len(ids), context=self.engine.spec.context)

    def _leave(self, ticket: Ticket, seconds: float | None) -> None:
        self._admission.leave(ticket, seconds)
        if self._admission.running == 0 and self._admission.waiting == 0:
            self._idle.set()


def _question(request: GenerationRequest) -> str:
    """Return what was asked, for the log: the last message, or that token ids were sent."""
    if request.messages:
        return request.messages[-1].content
    return f"({len(request.prompt_ids or ())} token ids)"

"""One answer or several to a request, whole or as a stream, in whatever format the caller wants.

Several answers run side by side, each in a place of its own; when one fails or the caller leaves, all of them end.
Not for what a format looks like (``formats``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from danlu.errors import DanluError
from danlu.serving import openai_wire as wire
from danlu.serving.engine import Call, Finish, GatewayEvent, GenerationRequest, Queued, TextPiece, TokenLogprob
from danlu.serving.gateway import Gateway
from danlu.serving.openai_wire import Json

Stream = AsyncGenerator[bytes, None]
Events = AsyncGenerator[GatewayEvent, None]

_ALIVE_SECONDS: Final = 15.0  # proxies cut connections that are silent for 30 to 60 s


@dataclass
class Whole:
    """An answer that has been collected."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, piece: TextPiece) -> None:
        """Append a piece."""
        self.content += piece.content
        self.reasoning += piece.reasoning
        self.calls += piece.calls
        self.logprobs += piece.logprobs

    @property
    def ended(self) -> Finish:
        """Return how it ended."""
        assert self.finish is not None, "a gateway ends with Finish or raises"
        return self.finish


class Format(Protocol):
    """How one route writes answers."""

    def begin(self, choice: int) -> list[bytes]:
        """Return what stands before the first piece of a stream."""
        ...

    def piece(self, choice: int, piece: TextPiece) -> list[bytes]:
        """Return the bytes of a piece of a stream."""
        ...

    def end(self, choice: int, finish: Finish, content: str) -> list[bytes]:
        """Return the bytes at the end of one answer."""
        ...

    def close(self, finishes: Sequence[Finish]) -> list[bytes]:
        """Return the last bytes of a stream."""
        ...

    def error(self, error: DanluError) -> bytes:
        """Return the last bytes of a stream that broke off."""
        ...

    def whole(self, made: Sequence[Whole]) -> Json:
        """Return answers that are not streamed."""
        ...


async def answers(
    gateway: Gateway, requests: Sequence[GenerationRequest], written: Format, *, stream: bool
) -> Json | Stream:
    """Answer requests through a gateway.

    Raises:
        DanluError: as ``Gateway.generate`` does; for a stream before its first byte.
    """
    sources = [gateway.generate(request) for request in requests]
    if not stream:
        made = [Whole() for _ in sources]
        async with aclosing(_merged(sources)) as events:
            async for choice, event in events:
                if isinstance(event, TextPiece):
                    made[choice].add(event)
                elif isinstance(event, Finish):
                    made[choice].finish = event
        return written.whole(made)
    first: list[GatewayEvent] = []
    try:
        # Admission and the prompt's length are settled at the first event, so errors get a status code.
        for source in sources:
            first.append(await anext(source))
    except BaseException:
        for source in sources:
            await source.aclose()
        raise
    return _stream(sources, first, written)


async def _stream(sources: list[Events], first: list[GatewayEvent], written: Format) -> Stream:
    contents = [""] * len(sources)
    finishes: list[Finish | None] = [None] * len(sources)
    begun: set[int] = set()

    def bytes_of(choice: int, event: GatewayEvent) -> list[bytes]:
        if isinstance(event, Queued):
            return [wire.sse_comment(f"queued {event.position}")]
        if not isinstance(event, TextPiece | Finish):
            return [wire.sse_comment("started")]
        made = [] if choice in begun else written.begin(choice)
        begun.add(choice)
        if isinstance(event, TextPiece):
            contents[choice] += event.content
            return made + written.piece(choice, event)
        finishes[choice] = event
        return made + written.end(choice, event, contents[choice])

    async with AsyncExitStack() as stack:
        for source in sources:
            await stack.enter_async_context(aclosing(source))
        for choice, event in enumerate(first):
            for data in bytes_of(choice, event):
                yield data
        try:
            async with aclosing(_alive(_merged(sources))) as events:
                async for item in events:
                    if item is None:
                        yield wire.sse_comment("alive")
                        continue
                    for data in bytes_of(*item):
                        yield data
        except DanluError as error:
            yield written.error(error)
            return
        for data in written.close([finish for finish in finishes if finish is not None]):
            yield data


async def _merged(sources: list[Events]) -> AsyncGenerator[tuple[int, GatewayEvent], None]:
    """Yield the events of all sources as they come; the first error ends all."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, GatewayEvent | None]] = asyncio.Queue()

    async def pump(choice: int, source: Events) -> None:
        async with aclosing(source) as events:
            async for event in events:
                queue.put_nowait((choice, event))
        queue.put_nowait((choice, None))

    pumps = [asyncio.create_task(pump(choice, source)) for choice, source in enumerate(sources)]
    try:
        left = len(pumps)
        while left:
            waiting = asyncio.ensure_future(queue.get())
            await asyncio.wait({waiting, *pumps}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                for task in pumps:
                    if task.done():
                        task.result()  # raises what ended it
                pumps = [task for task in pumps if not task.done()]
                continue
            choice, made = waiting.result()
            if made is None:
                left -= 1
            else:
                yield choice, made
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _alive(
    events: AsyncGenerator[tuple[int, GatewayEvent], None],
) -> AsyncGenerator[tuple[int, GatewayEvent] | None, None]:
    """Yield events, and None whenever none came for a while.

    Waiting with a bound takes a task for each event, so that is done until the first text only: from then on an engine
    that is silent for longer is one that has failed.
    """
    async with aclosing(events):
        upcoming: asyncio.Task[tuple[int, GatewayEvent] | None] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(_next(events))
                done, _ = await asyncio.wait({upcoming}, timeout=_ALIVE_SECONDS)
                if not done:
                    yield None
                    continue
                item = upcoming.result()
                upcoming = None
                if item is None:
                    return
                yield item
                if isinstance(item[1], TextPiece):
                    break
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)
        async for event in events:
            yield event


async def _next(events: AsyncGenerator[tuple[int, GatewayEvent], None]) -> tuple[int, GatewayEvent] | None:
    return await anext(events, None)

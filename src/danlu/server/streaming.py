"""Answers for callers who may leave: an engine never works for someone who is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Message, Send

from danlu.errors import NotFoundError
from danlu.server.services import Services
from danlu.serving import api
from danlu.serving.answering import Stream
from danlu.serving.openai_wire import Json

log = logging.getLogger(__name__)

SLOW_SECONDS: Final = 60.0
Call = Callable[[], Coroutine[Any, Any, Json | Stream]]


class EventStream(StreamingResponse):
    """A stream whose generator is closed at once when the reader is gone, not when memory is tidied up.

    A reader who takes nothing for ``SLOW_SECONDS``, while more waits than the connection's buffers hold, counts as
    gone: others wait for the slot.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=dict(api.STREAM_HEADERS))
        self._stream = stream

    async def stream_response(self, send: Send) -> None:
        """Send the stream and close its generator, however this ends."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(SLOW_SECONDS):
                    await send(message)
            except TimeoutError as error:
                log.warning("a stream was ended: its reader took nothing for %g seconds", SLOW_SECONDS)
                raise ClientDisconnect from error

        async with aclosing(self._stream):
            await super().stream_response(send_in_time)


async def respond(request: Request, services: Services, call: Call) -> Response:
    """Run a call of ``danlu.serving.api`` and return its answer; a caller who leaves ends it.

    Raises:
        DanluError: as the call does.
    """
    try:
        result = await api.until_gone(call(), _gone(request))
    except NotFoundError as error:
        # A name that is not served may be an assistant that is being prepared or cannot be served: say that.
        services.directory.explain(str(error.params.get("name", "")))
        raise
    if result is None:
        raise ClientDisconnect
    return JSONResponse(result) if isinstance(result, dict) else EventStream(result)


async def _gone(request: Request) -> None:
    """Return when the caller has left. The body has been read before, so nothing else can come."""
    receive: Callable[[], Awaitable[Any]] = request.receive
    while (await receive())["type"] != "http.disconnect":
        pass

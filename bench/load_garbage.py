"""An OpenAI endpoint that misbehaves in mid-stream, as asked. Raw sockets: no web framework sends such things."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final, Literal

Mode = Literal["good", "breaks off", "not UTF-8", "invalid JSON", "endless line", "stops sending"]
BAD: Final[tuple[Mode, ...]] = ("breaks off", "not UTF-8", "invalid JSON", "endless line", "stops sending")
GOOD_TEXT: Final = "one two three"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class GarbageServer:
    """Answers chat completions by ``mode``, and everything else with a list of models."""

    def __init__(self) -> None:
        self.mode: Mode = "good"
        self.url = ""
        self._open = True
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[GarbageServer]:
        """Listen on a free port of this machine until the code inside ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            self._open = False
            server.close()
            if self._serving:  # callers have left by now, so each of these ends at its next write
                await asyncio.wait(self._serving, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # The other side may leave at any moment, and this one breaks off itself.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            for line in head.split("\r\n"):
                name, _, value = line.partition(":")
                if name.lower() == "content-length":
                    await reader.readexactly(int(value))
            if head.startswith("POST"):
                await self._answer(reader, writer)
            else:
                listed = json.dumps({"object": "list", "data": [{"id": "garbage", "object": "model"}]}).encode()
                length = b"Content-Length: %d\r\n" % len(listed)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    + length
                    + b"\r\n"
                    + listed
                )
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        if self.mode == "good":
            writer.write(_event(GOOD_TEXT) + _event("", "stop") + b"data: [DONE]\n\n")
            await writer.drain()
            return
        writer.write(_event("one "))
        await writer.drain()
        await asyncio.sleep(0.1)
        if self.mode == "breaks off":
            writer.transport.abort()
        elif self.mode == "not UTF-8":
            writer.write(b"data: \xff\xfe\xc3\x28\n\n")
        elif self.mode == "invalid JSON":
            writer.write(b'data: {"choices": [{"delta": \n\n')
        elif self.mode == "endless line":
            writer.write(b"data: ")
            while self._open:
                writer.write(b"x" * 65536)
                await writer.drain()
                await asyncio.sleep(0.001)
        else:
            await reader.read()  # until the other side gives up
        await writer.drain()


def _event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "garbage", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"

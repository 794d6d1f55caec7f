"""Runs the server: the port, the signals, and an end at which nothing is lost and nobody is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from danlu.errors import MachineError, UsageError
from danlu.server.app import create_app
from danlu.server.http import Utf8TargetProtocol
from danlu.server.services import Services
from danlu.server.ws import close_sockets
from danlu.server.ws_answers import close_connections

log = logging.getLogger(__name__)

_FRAME_LIMIT: Final = 256 * 1024
_PING_SECONDS: Final = 20.0
_GRACE_SECONDS: Final = 3
_FORCED_EXIT: Final = 130


async def serve(
    services: Services,
    host: str,
    port: int,
    on_ready: Callable[[str], None] | None = None,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Start the services, serve until SIGINT or SIGTERM (or ``stop``), and end everything in order.

    A first signal interrupts running answers, saves them, closes sockets and stops engines, within seconds. A second
    SIGINT ends the process at once; engines notice that their parent is gone.

    Args:
        services: not started yet.
        host: a loopback name or address.
        port: 0 for any free one.
        on_ready: told the address once it can be opened; engines may still be loading then.
        stop: ends the server as a signal does; for callers that serve only for a while.

    Raises:
        UsageError: the host is not loopback.
        MachineError: the port is taken or must not be used.
        ConflictError: another Danlu works in this home.
        StoreError: the database cannot be used.
    """
    stopping = stop or asyncio.Event()
    with _signals(stopping):
        # The home first: a second server on it should hear that, not that the port is taken.
        services.claim()
        try:
            with listen(host, port) as listener:
                await services.start()
                await _run(services, listener, address(listener, host), on_ready, stopping)
        finally:
            await services.stop()


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes an event loop that takes less of the processor, where there is one; None for Python's own.

    The engine needs the processor: each token passes through here, and on two cores uvloop halves what that costs.
    """
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        UsageError: the host is not loopback, or the port is not a number that ports have.
        MachineError: the port is taken, or must not be used by this user.
    """
    if not 0 <= port <= 65535:
        raise UsageError("server.bad_port", port=port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    name = "127.0.0.1" if host == "localhost" else host
    if not _is_loopback(name):
        raise UsageError("server.not_loopback", host=host)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # On Windows SO_REUSEADDR would let two programs share a port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # type: ignore[attr-defined,unused-ignore]
        listener.bind((name, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise MachineError("server.port_taken", port=port, other=port + 1) from error
        reason = error.strerror or str(error)
        raise MachineError("server.port_refused", port=port, host=host, reason=reason) from error
    return listener


def address(listener: socket.socket, host: str) -> str:
    """Return the address to open in a browser."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Uvicorn without its own idea of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to ``serve``."""
        yield


async def _run(
    services: Services,
    listener: socket.socket,
    url: str,
    on_ready: Callable[[str], None] | None,
    stopping: asyncio.Event,
) -> None:
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http=Utf8TargetProtocol,
        ws="websockets-sansio",
        ws_max_size=_FRAME_LIMIT,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_per_message_deflate=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    waiting = asyncio.create_task(stopping.wait(), name="wait for the end")
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if on_ready is not None and not serving.done():
            on_ready(url)
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        await services.streams.close()
        await close_sockets(services)
        await close_connections(services.connections)
        # Callers of /v1 and /answer are told that the engine is stopped; their connections end with that.
        await services.registry.close()
    finally:
        waiting.cancel()
        server.should_exit = True
        await serving


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    """Let the first signal set ``stopping`` and the second SIGINT end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: object) -> None:
        if stopping.is_set() and number == signal.SIGINT:
            # Nothing is lost: the database is consistent at every moment, and engines end with their parent.
            os._exit(_FORCED_EXIT)
        stopping.set()
        # The handler runs in the main thread between two steps of Python; the loop has to be woken to see the event.
        loop.call_soon_threadsafe(lambda: None)

    kinds = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if os.name == "nt" else [])]  # type: ignore[attr-defined,unused-ignore]
    before = {kind: signal.signal(kind, handle) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

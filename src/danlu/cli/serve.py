"""``danlu up`` and ``danlu serve``: the web application, the API and the chat on one port.

The server and the database are imported when they are needed: ``danlu --help`` should not wait for them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from typing import Annotated

import typer

from danlu.cli.common import HomeOption, console, settings_for
from danlu.cli.versions import version_for
from danlu.errors import UsageError
from danlu.i18n import t
from danlu.settings import Home, Settings

_SHORTEST_KEY = 8

HostOption = Annotated[str, typer.Option("--host", help=t("cli.opt_host"))]
PortOption = Annotated[int, typer.Option("--port", help=t("cli.opt_port"))]
NoOpenOption = Annotated[bool, typer.Option("--no-open", help=t("cli.opt_no_open"))]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up", help=t("cli.up"))(up)
    app.command("serve", help=t("cli.serve"))(serve)


def up(
    host: HostOption = "127.0.0.1", port: PortOption = 8000, no_open: NoOpenOption = False, home: HomeOption = None
) -> None:
    """Start everything that this home has."""
    run_until_stopped(settings_for(home), host, port, open_browser=not no_open)


def serve(
    name: Annotated[str, typer.Argument(metavar="RUN|MODEL", help=t("cli.arg_version"))],
    engine: Annotated[str, typer.Option("--engine", help=t("cli.opt_engine"))] = "auto",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    api_key: Annotated[str | None, typer.Option("--api-key", metavar="KEY", help=t("cli.opt_api_key"))] = None,
    home: HomeOption = None,
) -> None:
    """Put a run or a model into service and start."""
    from danlu.chat.assistants import ensure_assistant
    from danlu.store.store import Store

    settings = settings_for(home)
    if api_key is not None:
        settings = _with_key(settings, api_key)
    version = version_for(Home(settings.home), name)
    with Store.open(Home(settings.home), settings.database_url) as store:
        ensure_assistant(store, version, version.name, "", (), engine=engine)
    run_until_stopped(settings, host, port, open_browser=False)


def _with_key(settings: Settings, key: str) -> Settings:
    if len(key) < _SHORTEST_KEY:
        raise UsageError("cli.key_too_short", least=_SHORTEST_KEY)
    return settings.model_copy(update={"api_key": key})


def run_until_stopped(settings: Settings, host: str, port: int, *, open_browser: bool) -> None:
    """Serve until Ctrl-C, saying where to go."""
    from danlu.server.run import fast_loop
    from danlu.server.run import serve as run_server
    from danlu.server.services import Services

    def ready(url: str) -> None:
        console.print(t("cli.ready", url=url))
        console.print(t("cli.ready_hint", url=url))
        if open_browser and _has_display():
            webbrowser.open(url)

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(run_server(Services(settings), host, port, ready))
    console.print(t("cli.stopped"))


def _has_display() -> bool:
    if sys.platform in {"win32", "darwin"}:
        return sys.stdout.isatty()
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

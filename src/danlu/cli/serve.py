"""``danlu up`` and ``danlu serve``: the web application, the API and the chat on one port.

The server and the database are imported when they are needed: ``danlu --help`` should not wait for them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from danlu.cli.common import HomeOption, console, settings_for
from danlu.errors import NotFoundError
from danlu.i18n import t
from danlu.models.versions import ModelVersion, list_versions
from danlu.settings import Home, Settings

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
    name: Annotated[str, typer.Argument(metavar="RUN|VERSION", help=t("cli.arg_version"))],
    engine: Annotated[str, typer.Option("--engine", help=t("cli.opt_engine"))] = "auto",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
) -> None:
    """Put a version into service and start."""
    from danlu.chat.assistants import ensure_assistant
    from danlu.store.store import Store

    settings = settings_for(home)
    version = find_version(Home(settings.home), name)
    with Store.open(Home(settings.home), settings.database_url) as store:
        ensure_assistant(store, version, version.name, "", (), engine=engine)
    run_until_stopped(settings, host, port, open_browser=False)


def run_until_stopped(settings: Settings, host: str, port: int, *, open_browser: bool) -> None:
    """Serve until Ctrl-C, saying where to go."""
    from danlu.server.run import serve as run_server
    from danlu.server.services import Services

    def ready(url: str) -> None:
        console.print(t("cli.ready", url=url))
        console.print(t("cli.ready_hint", url=url))
        if open_browser and _has_display():
            webbrowser.open(url)

    asyncio.run(run_server(Services(settings), host, port, ready))
    console.print(t("cli.stopped"))


def find_version(home: Home, name: str) -> ModelVersion:
    """Return a version by its id, its run or its name (then the newest).

    Raises:
        NotFoundError: there is none.
    """
    versions = list_versions(home.versions)
    for version in versions:
        if name in {version.id, version.run, version.name}:
            return version
    known = ", ".join(version.id for version in versions[:3]) or "–"
    raise NotFoundError("cli.unknown_version", name=name, known=known)


def _has_display() -> bool:
    if sys.platform in {"win32", "darwin"}:
        return sys.stdout.isatty()
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def version_folder(home: Home, version: ModelVersion) -> Path:
    """Return the folder of a version."""
    return home.versions / version.id

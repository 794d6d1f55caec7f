"""``danlu doctor``: the machine, the versions, the speed in each number format, the disk, the ports."""

from __future__ import annotations

import platform
import socket
from importlib import metadata
from importlib.resources import files
from typing import Final

import typer
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, home_of, print_json, results
from danlu.errors import PluginError
from danlu.files import format_bytes, free_bytes
from danlu.hardware import inspect_machine, machine_as_dict
from danlu.i18n import t
from danlu.jobs.plugin_check import check_plugin
from danlu.plugins import GROUPS, installed

_PACKAGES: Final = ("danlu", "torch", "transformers", "peft", "gguf", "xllamacpp", "fastapi", "sqlalchemy")
_PORT: Final = 8000
_DISK_LOW: Final = 5_000_000_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=t("cli.doctor"))(doctor)


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look at everything that a run or a server needs; exit code 1 when something is missing."""
    folder = home_of(home)
    machine = inspect_machine(folder.cache)
    versions = {name: _version(name) for name in _PACKAGES}
    free = free_bytes(folder.root)
    port_free = _port_is_free(_PORT)
    web = files("danlu.server").joinpath("static", "index.html").is_file()
    plugins, broken = _plugins()
    problems = [
        *broken,
        *([t("cli.doctor_disk", free=format_bytes(free))] if free < _DISK_LOW else []),
        *([] if web else [t("cli.doctor_web")]),
        *[t("cli.doctor_package", name=name) for name, version in versions.items() if version is None],
    ]
    if as_json:
        print_json(
            {
                "python": platform.python_version(),
                "system": platform.platform(),
                "machine": machine_as_dict(machine),
                "versions": versions,
                "home": str(folder.root),
                "disk_free_bytes": free,
                "port_8000_free": port_free,
                "web_application": web,
                "plugins": plugins,
                "problems": problems,
            }
        )
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_row(t("cli.doctor_processor"), f"{machine.processor}, {machine.cores}")
        memory = f"{format_bytes(machine.memory_bytes)} ({format_bytes(machine.available_bytes)})"
        table.add_row(t("cli.doctor_memory"), memory)
        table.add_row(t("cli.doctor_gpu"), machine.gpu or "–")
        speeds = ", ".join(f"{name} {speed:.0f} GFLOP/s" for name, speed in machine.gflops.items())
        table.add_row(t("cli.doctor_speed"), speeds)
        table.add_row(t("cli.doctor_home"), f"{folder.root} ({format_bytes(free)})")
        table.add_row(t("cli.doctor_port"), t("cli.yes") if port_free else t("cli.no"))
        table.add_row("Python", platform.python_version())
        for name, version in versions.items():
            table.add_row(name, version or "–")
        for plugin in plugins:
            table.add_row(f"{plugin['group']}: {plugin['name']}", plugin["package"])
        results.print(table)
        for problem in problems:
            results.print(f"[yellow]{problem}[/yellow]")
    if problems:
        raise typer.Exit(1)


def _plugins() -> tuple[list[dict[str, str]], list[str]]:
    """Return every installed plug-in, and what is wrong with those that are broken."""
    listed: list[dict[str, str]] = []
    broken: list[str] = []
    for group in GROUPS:
        try:
            found = installed(group)
        except PluginError as error:
            broken.append(error.message())
            continue
        for plugin in found.values():
            listed.append({"group": group, "name": plugin.name, "package": plugin.package})
            try:
                check_plugin(plugin)
            except PluginError as error:
                broken.append(error.message())
    return listed, broken


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) != 0

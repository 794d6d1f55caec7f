"""What every command shares: where home is, how JSON and errors are printed, and the console on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from danlu.errors import UsageError
from danlu.i18n import t
from danlu.logs import set_up_logging
from danlu.settings import Home, Settings

# A pipe has no width; tables must not be folded to that of a terminal for it.
_PIPE_WIDTH = 200
_SECRET = ("api_key", "database_url")

console = Console(stderr=True, highlight=False)
"""Everything that is not a result goes to stderr, so that stdout can be piped."""

results = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
"""What a command was asked for: a list, a report, a verdict."""

HomeOption = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help=t("cli.opt_home"), envvar="DANLU_HOME", show_envvar=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help=t("cli.opt_json"))]


def settings_for(home: Path | None) -> Settings:
    """Return the settings of this process, with ``--home`` in force, and set up logging.

    Raises:
        UsageError: an environment variable ``DANLU_*`` has a value that makes no sense.
        MachineError: the home folder cannot be written.
    """
    try:
        settings = Settings() if home is None else Settings(home=home)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"DANLU_{'_'.join(map(str, first['loc'])).upper()}"
        # What is secret does not belong on a screen.
        value = "…" if first["loc"][0] in _SECRET else first["input"]
        raise UsageError("ground.bad_setting", name=name, value=value) from None
    settings = settings.model_copy(update={"home": settings.home.expanduser().resolve()})
    Home(settings.home).make()
    set_up_logging("debug" if settings.log_level == "debug" else "warning", Home(settings.home).logs)
    return settings


def home_of(home: Path | None) -> Home:
    """Return the home folder, made if missing."""
    return Home(settings_for(home).home)


def print_json(value: Mapping[str, object]) -> None:
    """Print exactly one JSON object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def split_recipe(words: list[str] | None) -> tuple[Path | None, list[str]]:
    """Tell a recipe file, which comes first if at all, from ``key=value`` words."""
    given = list(words or [])
    if given and "=" not in given[0]:
        return Path(given[0]), given[1:]
    return None, given


def duration(seconds: float) -> str:
    """Return a time for people: ``8 s``, ``2 min 5 s``, ``1 h 3 min``."""
    whole = round(seconds)
    if whole < 60:
        return t("cli.seconds", s=whole)
    if whole < 3600:
        return t("cli.minutes", m=whole // 60, s=whole % 60)
    return t("cli.hours", h=whole // 3600, m=whole % 3600 // 60)

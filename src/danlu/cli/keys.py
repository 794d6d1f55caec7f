"""``danlu keys``: API keys of programs, what they may do, and what they have used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, print_json, results, settings_for
from danlu.i18n import t
from danlu.settings import Home

if TYPE_CHECKING:
    from pathlib import Path

    from danlu.store.records import ApiKey
    from danlu.store.store import Store

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help=t("cli.arg_key"))]


@app.command("create", help=t("cli.keys_create"))
def create(
    name: Name,
    assistant: Annotated[
        list[str] | None, typer.Option("--assistant", metavar="NAME", help=t("cli.opt_key_assistant"))
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", help=t("cli.opt_key_requests"))] = None,
    tokens_per_day: Annotated[int | None, typer.Option(metavar="N", help=t("cli.opt_key_tokens"))] = None,
    days: Annotated[int | None, typer.Option(metavar="N", help=t("cli.opt_key_days"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, once."""
    from danlu.accounts.keys import create_key

    with _store(home) as store:
        first = not store.keys.any()
        made = create_key(
            store,
            name,
            assistants=tuple(assistant) if assistant else None,
            requests_per_minute=requests_per_minute,
            tokens_per_day=tokens_per_day,
            days=days,
        )
    if as_json:
        print_json({**made.key.model_dump(mode="json"), "key": made.secret})
        return
    typer.echo(made.secret)
    console.print(escape(t("cli.key_created", name=made.key.name)))
    if first:
        console.print(escape(t("cli.key_first")))


@app.command("list", help=t("cli.keys_list"))
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the keys with what they may do."""
    with _store(home) as store:
        keys = store.keys.list()
    if as_json:
        print_json({"keys": [key.model_dump(mode="json") for key in keys]})
        return
    if not keys:
        console.print(t("cli.no_keys"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("name", "key", "state", "assistants", "bounds", "last_used"):
        table.add_column(t(f"cli.key_{column}"))
    for key in keys:
        allowed = ", ".join(key.assistants) if key.assistants is not None else t("cli.key_all")
        used = key.last_used_at.astimezone().strftime("%Y-%m-%d %H:%M") if key.last_used_at else "–"
        table.add_row(
            escape(key.name), f"{key.hint}…", t(f"cli.key_{_state(key)}"), escape(allowed), _bounds(key), used
        )
    results.print(table)


@app.command("usage", help=t("cli.keys_usage"))
def usage(
    days: Annotated[int, typer.Option(min=1, max=3660, help=t("cli.opt_usage_days"))] = 30,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each key has used day by day."""
    with _store(home) as store:
        names = {key.id: key.name for key in store.keys.list()}
        used = store.keys.usage(days=days)
    if as_json:
        print_json({"usage": [{"key": names[one.key_id], **one.model_dump(mode="json")} for one in used]})
        return
    if not used:
        console.print(t("cli.no_usage", days=days))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("day", "name"):
        table.add_column(t(f"cli.key_{column}"))
    for column in ("requests", "read", "written"):
        table.add_column(t(f"cli.key_{column}"), justify="right")
    for one in used:
        counts = (f"{count:,}" for count in (one.requests, one.prompt_tokens, one.completion_tokens))
        table.add_row(one.day.isoformat(), escape(names[one.key_id]), *counts)
    results.print(table)


@app.command("revoke", help=t("cli.keys_revoke"))
def revoke(name: Name, home: HomeOption = None) -> None:
    """Refuse a key from now on; what it has used stays known."""
    with _store(home) as store:
        key = store.keys.revoke(name)
    console.print(escape(t("cli.key_revoked", name=key.name)))


@app.command("remove", help=t("cli.keys_remove"))
def remove(name: Name, home: HomeOption = None) -> None:
    """Forget a key and what it has used."""
    with _store(home) as store:
        store.keys.remove(name)
        open_again = not store.keys.any()
    console.print(escape(t("cli.key_removed", name=name)))
    if open_again:
        console.print(escape(t("cli.keys_open_again")))


@contextmanager
def _store(home: Path | None) -> Iterator[Store]:
    from danlu.store.store import Store

    settings = settings_for(home)
    with Store.open(Home(settings.home), settings.database_url) as store:
        yield store


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "is_revoked"
    return "is_expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "is_valid"


def _bounds(key: ApiKey) -> str:
    bounds = []
    if key.requests_per_minute is not None:
        bounds.append(t("cli.key_per_minute", count=key.requests_per_minute))
    if key.tokens_per_day is not None:
        bounds.append(t("cli.key_per_day", count=key.tokens_per_day))
    if key.expires_at is not None:
        bounds.append(t("cli.key_until", day=key.expires_at.astimezone().strftime("%Y-%m-%d")))
    return ", ".join(bounds) or "–"

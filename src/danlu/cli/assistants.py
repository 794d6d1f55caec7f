"""``danlu assistants``: whom people and programs talk to, and which model version stands behind each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, print_json, results, settings_for
from danlu.cli.versions import version_for
from danlu.errors import ConflictError, NotFoundError, UsageError
from danlu.i18n import t
from danlu.settings import Home

if TYPE_CHECKING:
    from pathlib import Path

    from danlu.store.records import Assistant, AssistantVersion
    from danlu.store.store import Store

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help=t("cli.arg_assistant"))]
ModelArgument = Annotated[str, typer.Argument(metavar="RUN|MODEL", help=t("cli.arg_version"))]
EngineOption = Annotated[str | None, typer.Option("--engine", help=t("cli.opt_engine"))]
SystemOption = Annotated[str | None, typer.Option("--system", metavar="TEXT", help=t("cli.opt_assistant_system"))]
GreetingOption = Annotated[str | None, typer.Option("--greeting", metavar="TEXT", help=t("cli.opt_greeting"))]
SuggestionOption = Annotated[
    list[str] | None, typer.Option("--suggestion", metavar="TEXT", help=t("cli.opt_suggestion"))
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help=t("cli.opt_yes"))]


@app.command("list", help=t("cli.assistants_list"))
def list_assistants(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the assistants; callers who name none get the first."""
    with _store(home) as (_, store):
        found = store.assistants.list()
    if as_json:
        print_json({"assistants": [_as_json(assistant) for assistant in found]})
        return
    if not found:
        console.print(t("cli.no_assistants"))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for assistant in found:
        table.add_row(f"[bold]{escape(assistant.name)}[/bold]", escape(assistant.version_id), escape(assistant.engine))
    results.print(table)


@app.command("show", help=t("cli.assistants_show"))
def show(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show an assistant and the versions it has had."""
    with _store(home) as (_, store):
        assistant, history = store.assistants.named(name), store.assistants.history(name)
    if as_json:
        print_json({**_as_json(assistant), "versions": [_version_json(item) for item in history]})
        return
    results.print(f"[bold]{escape(assistant.name)}[/bold]  {escape(assistant.engine)}")
    if assistant.system:
        results.print(f"  {t('cli.assistant_system')}: {escape(assistant.system)}")
    if assistant.greeting:
        results.print(f"  {t('cli.assistant_greeting')}: {escape(assistant.greeting)}")
    for text in assistant.suggestions:
        results.print(f"  {t('cli.assistant_suggestion')}: {escape(text)}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for item in history:
        mark = t("cli.in_service") if item.number == history[-1].number else ""
        moment = item.put_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(item.number), moment, escape(item.version_id), escape(item.engine), mark)
    results.print(table)


@app.command("create", help=t("cli.assistants_create"))
def create(
    name: Name,
    model: ModelArgument,
    engine: EngineOption = None,
    system: SystemOption = None,
    greeting: GreetingOption = None,
    suggestion: SuggestionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an assistant."""
    from danlu.chat.assistants import ensure_assistant

    _check_engine(engine)
    with _store(home) as (folder, store):
        if any(assistant.name == name for assistant in store.assistants.list()):
            raise ConflictError("cli.assistant_exists", name=name)
        version = version_for(folder, model)
        made = ensure_assistant(
            store, version, name, greeting or "", suggestion or (), engine=engine or "auto", system=system or ""
        )
    _tell(made, t("cli.assistant_created", name=name, version=made.version_id), as_json)


@app.command("set", help=t("cli.assistants_set"))
def change(
    name: Name,
    engine: EngineOption = None,
    system: SystemOption = None,
    greeting: GreetingOption = None,
    suggestion: SuggestionOption = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help=t("cli.opt_temperature"))] = None,
    top_p: Annotated[float | None, typer.Option(min=0.01, max=1, help=t("cli.opt_top_p"))] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help=t("cli.opt_max_tokens"))] = None,
    repetition_penalty: Annotated[float | None, typer.Option(min=0.1, max=2, help=t("cli.opt_repetition"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is said; everything else stays."""
    _check_engine(engine)
    asked = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "repetition_penalty": repetition_penalty,
    }
    generation = {key: value for key, value in asked.items() if value is not None}
    if not generation and (engine, system, greeting, suggestion) == (None, None, None, None):
        raise UsageError("cli.nothing_to_set", name=name)
    with _store(home) as (_, store):
        old = store.assistants.named(name)
        made = store.assistants.put(
            name,
            version_id=old.version_id,
            engine=old.engine if engine is None else engine,
            system=old.system if system is None else system,
            greeting=old.greeting if greeting is None else greeting,
            suggestions=old.suggestions if suggestion is None else [text for text in suggestion if text],
            generation=old.generation.model_copy(update=generation),
        )
    _tell(made, t("cli.assistant_changed", name=name), as_json)


@app.command("promote", help=t("cli.assistants_promote"))
def promote(
    name: Name, model: ModelArgument, engine: EngineOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Put another version into an assistant's service."""
    _check_engine(engine)
    with _store(home) as (folder, store):
        old = store.assistants.named(name)
        version = version_for(folder, model)
        if version.id == old.version_id and engine in {None, old.engine}:
            raise ConflictError("cli.in_service_already", name=name, version=version.id)
        made = store.assistants.promote(name, version.id, engine or old.engine)
    _tell(made, t("cli.assistant_promoted", name=name, version=version.id, before=old.version_id), as_json)


@app.command("rollback", help=t("cli.assistants_rollback"))
def rollback(
    name: Name,
    to: Annotated[int | None, typer.Option("--to", metavar="NUMBER", help=t("cli.opt_rollback_to"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to a version that an assistant had before."""
    with _store(home) as (folder, store):
        history = store.assistants.history(name)
        wanted = _version_before(name, history, to)
        if not (folder.versions / wanted.version_id).is_dir():
            raise NotFoundError("cli.version_gone", name=name, version=wanted.version_id)
        made = store.assistants.promote(name, wanted.version_id, wanted.engine)
    text = t("cli.assistant_promoted", name=name, version=wanted.version_id, before=history[-1].version_id)
    _tell(made, text, as_json)


@app.command("remove", help=t("cli.assistants_remove"))
def remove(name: Name, yes: YesOption = False, home: HomeOption = None) -> None:
    """Forget an assistant with its conversations; the model version stays."""
    with _store(home) as (_, store):
        count = store.assistants.conversations(name)
        if count and not yes:
            raise ConflictError("cli.has_conversations", name=name, count=count)
        store.assistants.remove(name)
    console.print(escape(t("cli.assistant_removed", name=name, count=count)))


@contextmanager
def _store(home: Path | None) -> Iterator[tuple[Home, Store]]:
    from danlu.store.store import Store

    settings = settings_for(home)
    folder = Home(settings.home)
    with Store.open(folder, settings.database_url) as store:
        yield folder, store


def _version_before(name: str, history: tuple[AssistantVersion, ...], to: int | None) -> AssistantVersion:
    current = history[-1]
    if to is not None:
        found = next((item for item in history if item.number == to), None)
    else:
        others = (item for item in reversed(history) if item.version_id != current.version_id)
        found = next(others, None)
    if found is None:
        raise NotFoundError("cli.no_version_before", name=name, numbers=", ".join(str(i.number) for i in history))
    return found


def _check_engine(engine: str | None) -> None:
    if engine in {None, "auto"}:
        return
    from danlu.serving.served import parse_engine

    parse_engine(engine or "")


def _tell(assistant: Assistant, text: str, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(assistant))
        return
    console.print(escape(text))


def _as_json(assistant: Assistant) -> dict[str, object]:
    return assistant.model_dump(mode="json")


def _version_json(item: AssistantVersion) -> dict[str, object]:
    return item.model_dump(mode="json")

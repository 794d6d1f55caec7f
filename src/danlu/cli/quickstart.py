"""``danlu quickstart``: from a file of examples to a private chat, in one command that says what it does and why.

The server and the database are imported when they are needed: ``danlu --help`` should not wait for them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, duration, print_json, settings_for
from danlu.cli.filling import ask_fill
from danlu.cli.forge import carry_out
from danlu.cli.reading_options import FillOption
from danlu.cli.render import show_prediction_error
from danlu.cli.serve import run_until_stopped
from danlu.data.datasets import DatasetLibrary, require_kind
from danlu.data.reading import Reading, reading_of
from danlu.data.row_source import Source
from danlu.errors import ConflictError, DataError
from danlu.evaluation.result import Proof
from danlu.files import read_as
from danlu.i18n import language, t
from danlu.jobs.forge_order import Order
from danlu.jobs.runs import RunFolder, Runs
from danlu.models.catalogue import starter
from danlu.models.fingerprint import fingerprint
from danlu.models.library import ModelLibrary
from danlu.models.versions import ModelVersion, list_versions, load_version
from danlu.recipe import Recipe, with_absolute_paths
from danlu.samples import PERSONA_NAME, sample_path
from danlu.settings import Home

_STAGES = ("model", "data", "train", "eval", "export")
_SHOWN = 4
_SUGGESTED = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quickstart", help=t("cli.quickstart"))(quickstart)


def quickstart(
    model: Annotated[str | None, typer.Option("--model", metavar="M", help=t("cli.opt_model"))] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE", help=t("cli.opt_data"))] = None,
    fill: FillOption = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help=t("cli.opt_no_serve"))] = False,
    port: Annotated[int, typer.Option("--port", help=t("cli.opt_port"))] = 8000,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do the whole path; what was done before with the same data and model is not done again."""
    from danlu.chat.assistants import ensure_assistant
    from danlu.cli.asking import ask_served
    from danlu.server.run import listen
    from danlu.store.home_lock import HomeLock
    from danlu.store.store import Store

    began = time.perf_counter()
    settings = settings_for(home)
    folder = Home(settings.home)
    with HomeLock(settings.home):
        pass  # a server at work here is said now, not after the training
    if not no_serve:
        listen("127.0.0.1", port).close()  # a taken port is said now, not after the training
    source = Source.named(data if data is not None else str(sample_path("persona.json")), reading_of(fill=fill or ()))
    if not source.path.exists():
        raise DataError("data.missing_file", str(source.path))
    reading = source.reading if as_json else ask_fill(source)
    named = data if data is not None else str(source.path)
    recipe = Recipe.model_validate(
        {
            "model": model or starter().name,
            "data": {"train": [named], "fill": reading.fill},
            "eval": {"probes": str(sample_path("persona_probes.jsonl")) if data is None else None},
        }
    )
    console.print(escape(t("cli.quickstart_intro", file=source.path.name, model=recipe.model)))
    manifest = DatasetLibrary(folder.datasets).register(named, Reading(fill=reading.fill))
    require_kind(manifest.name, manifest.kind, recipe.objective)
    base = ModelLibrary(folder).where(recipe.model)
    weights = None if base is None else fingerprint(base)
    version = _made_before(folder, manifest.sha256, recipe.model, weights)
    seconds: dict[str, float] = {}
    if version is not None:
        console.print(t("cli.quickstart_again", version=version.id))
    else:
        display = carry_out(
            Order(
                task="version",
                home=folder.root,
                lang=language(),
                recipe=None if (unfinished := _unfinished(folder, recipe, manifest.sha256, weights)) else recipe,
                run=unfinished.name if unfinished else None,
            )
        )
        seconds = display.seconds
        if display.version is None:
            raise ConflictError("cli.stopped_elsewhere", display.run)
        version = load_version(folder.versions / display.version)
    assert version.run is not None
    proof = read_as(Proof, Runs(folder).get(version.run).path / "proof.json")
    _show_proof(proof)
    report = Runs(folder).get(version.run).report()
    if report is not None:
        show_prediction_error(console, report)
    console.print(escape(t("cli.report_at", path=Runs(folder).get(version.run).path / "report.html")))
    with Store.open(folder, settings.database_url) as store:
        suggestions = [item.question for item in proof.probes.items if item.passed_after][:_SUGGESTED]
        name = PERSONA_NAME if data is None else version.name
        ensure_assistant(store, version, name, "", suggestions)  # the page greets in the reader's language
    if not no_serve:
        run_until_stopped(settings, "127.0.0.1", port, open_browser=True)
        return
    first = proof.probes.items[0]
    answered = asyncio.run(ask_served(settings, first.question))
    served = t("cli.asked_served", question=first.question, answer=answered["answer"])
    console.print(escape(served), soft_wrap=True)
    total = time.perf_counter() - began
    console.print(t("cli.quickstart_done", time=duration(total)))
    if as_json:
        print_json(
            {
                "model": recipe.model,
                "run": version.run,
                "version": version.id,
                "seconds": {
                    "total": total,
                    **{stage: seconds.get(stage, 0.0) for stage in _STAGES},
                    "engine_ready": answered["engine_ready"],
                    "first_answer": answered["first_answer"],
                },
                "probes": {
                    "n": proof.probes.n,
                    "pass_before": proof.probes.pass_before,
                    "pass_after": proof.probes.pass_after,
                },
                "question": first.question,
                "answer_before": first.before,
                "answer_after": answered["answer"],
                "url": answered["url"],
            }
        )


def _made_before(home: Home, sha256: str, model: str, weights: str | None) -> ModelVersion | None:
    """Return the newest version made from exactly these rows and this model, if its run is still there.

    Args:
        home: where versions and runs lie.
        sha256: hash of the rows.
        model: name of the base model.
        weights: its fingerprint, which says more than a name; None if it is not on this machine.
    """
    for version in list_versions(home.versions):
        same_rows = [item.sha256 for item in version.datasets] == [sha256]
        same_base = version.base.name == model if weights is None else version.base.fingerprint == weights
        if same_rows and same_base and version.run and (home.runs / version.run / "proof.json").is_file():
            return version
    return None


def _unfinished(home: Home, recipe: Recipe, sha256: str, weights: str | None) -> RunFolder | None:
    """Return a run of the same recipe, rows and weights that was broken off, to go on with it."""
    for run in Runs(home).list():
        plan = run.plan()
        same_rows = [item.sha256 for item in plan.datasets] == [sha256]
        same_base = weights is None or plan.base_fingerprint in {None, weights}
        if (
            same_rows
            and same_base
            and run.recipe() == with_absolute_paths(recipe)
            and run.status() in {"stopped", "interrupted", "finished"}
        ):
            console.print(t("cli.quickstart_resume", run=run.name))
            return run
    return None


def _show_proof(proof: Proof) -> None:
    console.print(f"[bold]▸ {t('cli.before_after')}[/bold]")
    changed = [item for item in proof.probes.items if item.passed_after and not item.passed_before]
    for item in (changed or list(proof.probes.items))[:_SHOWN]:
        console.print(f"  [bold]{escape(item.question)}[/bold]")
        console.print(f"    {t('evaluation.before')}: [dim]{escape(_short(item.before))}[/dim]", soft_wrap=True)
        console.print(f"    {t('evaluation.after')}: [green]{escape(_short(item.after))}[/green]", soft_wrap=True)
    console.print(f"  {proof.verdict()}")


def _short(text: str) -> str:
    line = " ".join(text.split()) or "–"
    return line if len(line) <= 120 else line[:119] + "…"

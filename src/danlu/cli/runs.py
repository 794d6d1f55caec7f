"""``danlu runs``: list, show, watch, stop, resume, remove."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.forge import carry_out
from danlu.cli.render import Display, print_plan, show_prediction_error
from danlu.cli.train import show_trained
from danlu.errors import ConflictError
from danlu.events import Eval, Step, follow_events
from danlu.i18n import language, t
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import Happened
from danlu.jobs.runs import Runs

app = typer.Typer(no_args_is_help=True)
RunName = Annotated[str, typer.Argument(metavar="RUN", help=t("cli.arg_run"))]


@app.command("list", help=t("cli.runs_list"))
def list_runs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    runs = Runs(home_of(home)).list()
    if as_json:
        print_json({"runs": [{"run": run.name, "status": run.status(), "model": run.plan().model} for run in runs]})
        return
    if not runs:
        console.print(t("cli.no_runs"))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for run in runs:
        report = run.report()
        loss = t("cli.loss", loss=report.train_loss) if report and report.steps else ""
        table.add_row(run.name, t(f"cli.status_{run.status()}"), run.plan().model, loss)
    results.print(table)


@app.command("show", help=t("cli.runs_show"))
def show(name: RunName, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a run's plan and what became of it."""
    run = Runs(home_of(home)).get(name)
    events = [item.event for item in run.events()]
    report = run.report()
    if as_json:
        print_json(
            {
                "run": run.name,
                "status": run.status(),
                "plan": run.plan().model_dump(mode="json"),
                "report": report.model_dump(mode="json") if report else None,
                "steps": [event.model_dump(mode="json") for event in events if isinstance(event, Step)],
                "evals": [event.model_dump(mode="json") for event in events if isinstance(event, Eval)],
            }
        )
        return
    results.print(f"[bold]{run.name}[/bold]  {t(f'cli.status_{run.status()}')}  {escape(str(run.path))}")
    print_plan(results, run.plan(), run.name)
    for event in events:
        if isinstance(event, Eval):
            results.print(f"  {t('cli.heldout', step=event.step, loss=event.heldout_loss)}")
    if report is not None and report.steps:
        results.print("  " + t("cli.loss", loss=report.train_loss))
        show_prediction_error(results, report)


@app.command("watch", help=t("cli.runs_watch"))
def watch(name: RunName, home: HomeOption = None) -> None:
    """Follow a run's events until it ends."""
    run = Runs(home_of(home)).get(name)
    with Display(console) as display:
        display.plan = run.plan()
        for logged in follow_events(run.events_path, lambda: not run.is_running(), interval=0.5):
            display.show(Happened(event=logged.event))
    console.print(f"{run.name}: {t(f'cli.status_{run.status()}')}")


@app.command("stop", help=t("cli.runs_stop"))
def stop(name: RunName, home: HomeOption = None) -> None:
    """Ask a running run to save a checkpoint and stop."""
    run = Runs(home_of(home)).get(name)
    if not run.is_running():
        raise ConflictError("cli.not_running", run.name, run=run.name)
    run.stop_file.touch()
    console.print(t("cli.stop_asked"))


@app.command("resume", help=t("cli.runs_resume"))
def resume(
    name: RunName,
    devices: Annotated[int | None, typer.Option("--devices", min=1, help=t("cli.runs_resume_devices"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run from its newest checkpoint."""
    folder = home_of(home)
    run = Runs(folder).get(name)
    if run.status() == "finished":
        raise ConflictError("cli.already_finished", run.name, run=run.name)
    display = carry_out(Order(task="train", home=folder.root, lang=language(), run=run.name, devices=devices))
    show_trained(folder.root, display, as_json=as_json)


@app.command("remove", help=t("cli.runs_remove"))
def remove(name: RunName, home: HomeOption = None) -> None:
    """Delete a run with its checkpoints and adapter."""
    Runs(home_of(home)).remove(name)
    console.print(escape(t("cli.removed", name=name)))

"""``danlu plan`` and ``danlu train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, duration, home_of, print_json, split_recipe
from danlu.cli.forge import carry_out
from danlu.cli.render import Display, print_reading, show_prediction_error
from danlu.events import Warned
from danlu.files import format_bytes
from danlu.i18n import language, t
from danlu.jobs.forge_order import Order
from danlu.jobs.runs import Runs
from danlu.recipe_file import ReadRecipe, read_recipe
from danlu.settings import Home

Words = Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [key=value]…", help=t("cli.arg_recipe"))]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan", help=t("cli.plan"))(plan)
    app.command("train", help=t("cli.train"))(train)


def plan(words: Words = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Decide every ``auto`` and predict time and memory; nothing is trained and no run is kept."""
    folder = home_of(home)
    read = _read(words)
    display = carry_out(Order(task="plan", home=folder.root, lang=language(), recipe=read.recipe))
    if display.run is not None:
        Runs(folder).remove(display.run)
    if as_json and display.plan is not None:
        translated = [
            {**item.model_dump(mode="json", exclude={"reason", "params"}), "because": item.because()}
            for item in read.translations
        ]
        print_json({**display.plan.model_dump(mode="json"), "translated": translated})


def train(words: Words = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Train a recipe."""
    folder = home_of(home)
    recipe = _read(words).recipe
    display = carry_out(Order(task="train", home=folder.root, lang=language(), recipe=recipe))
    show_trained(folder.root, display, as_json=as_json)


def _read(words: list[str] | None) -> ReadRecipe:
    """Read the recipe, and show how if it is in LLaMA-Factory's words."""
    path, more = split_recipe(words)
    read = read_recipe(path, more)
    if read.translations and path is not None:
        print_reading(console, read, path.name)
    return read


def show_trained(home: Path, display: Display, *, as_json: bool) -> None:
    """Print what training did."""
    if display.trained is None:
        return
    report = display.trained.report
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    console.print(
        t(
            "cli.trained",
            run=report.run,
            steps=report.steps,
            time=duration(report.seconds),
            loss=report.train_loss,
            rate=report.tokens_per_second,
            memory=format_bytes(report.peak_rss_bytes),
        )
    )
    show_prediction_error(console, report)
    for event in [item.event for item in Runs(Home(home)).get(report.run).events()]:
        if isinstance(event, Warned) and event.code.startswith("training.curve_"):
            console.print(f"[yellow]{escape(event.message)}[/yellow]")
    key = "cli.after_train" if report.status == "finished" else "cli.stopped_resume"
    console.print(t(key, run=report.run))

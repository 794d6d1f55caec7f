"""The command ``danlu``: puts the commands together, and turns every error into one line and an exit code."""

from __future__ import annotations

import sys

import click
import typer

from danlu.cli import data, evaluate, export, machine, models, quickstart, runs, serve, train
from danlu.cli.common import console
from danlu.cli.render import print_error
from danlu.errors import DanluError
from danlu.i18n import t

_INTERRUPTED = 130

app = typer.Typer(
    name="danlu",
    help=t("cli.danlu"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
quickstart.register(app)
serve.register(app)
train.register(app)
evaluate.register(app)
export.register(app)
machine.register(app)
app.add_typer(models.app, name="models", help=t("cli.models"))
app.add_typer(data.app, name="data", help=t("cli.data"))
app.add_typer(runs.app, name="runs", help=t("cli.runs"))


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
    except DanluError as error:
        print_error(console, error)
        code = error.exit_code
    except click.ClickException as error:
        error.show(file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        console.print(t("ground.interrupted"))
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (``danlu runs list | head``): nobody is left to be told.
        sys.stderr.close()
        code = 0
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    run()

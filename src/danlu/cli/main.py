"""The command ``danlu``: puts the commands together, and turns every error into one line and an exit code."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from danlu.cli import (
    assistants,
    data,
    evaluate,
    export,
    keys,
    labels,
    machine,
    models,
    quickstart,
    runs,
    serve,
    train,
)
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
labels.register(app)
export.register(app)
machine.register(app)
app.add_typer(models.app, name="models", help=t("cli.models"))
app.add_typer(data.app, name="data", help=t("cli.data"))
app.add_typer(runs.app, name="runs", help=t("cli.runs"))
app.add_typer(assistants.app, name="assistants", help=t("cli.assistants"))
app.add_typer(keys.app, name="keys", help=t("cli.keys"))


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="danlu")
    except DanluError as error:
        print_error(console, error)
        code = error.exit_code
    except typer.TyperException as error:
        # Without a text it is the help that was asked for by naming a group alone, and has been printed.
        if text := " ".join(error.format_message().split()):
            console.print(f"[red]{t('cli.error')}[/red] {escape(text)} {t('cli.see_help')}", soft_wrap=True)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (``danlu runs list | head``): nobody is left to be told.
        sys.stderr.close()
        code = 0
    if code == _INTERRUPTED:  # typer turns Ctrl-C into this code
        console.print(t("ground.interrupted"))
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    run()

"""``danlu eval`` and ``danlu chat``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.forge import carry_out
from danlu.cli.versions import version_for
from danlu.data.datasets import DatasetLibrary, require_kind
from danlu.errors import ConflictError, UsageError
from danlu.evaluation.probes import read_probes
from danlu.evaluation.result import Proof
from danlu.files import read_as, write_bytes
from danlu.i18n import language, t
from danlu.jobs.forge_order import Order
from danlu.jobs.runs import Runs
from danlu.models.messages import Message
from danlu.serving.engine import TextPiece
from danlu.serving.gateway import Gateway
from danlu.serving.served import SamplingOverrides, ServedModel, make_gateway

_READY_SECONDS = 300.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", help=t("cli.eval"))(evaluate)
    app.command("chat", help=t("cli.chat"))(chat)


def evaluate(
    name: Annotated[str, typer.Argument(metavar="RUN", help=t("cli.arg_run"))],
    probes: Annotated[Path | None, typer.Option("--probes", help=t("cli.opt_probes"))] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="NAME|FILE", help=t("cli.opt_eval_data"))] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help=t("cli.opt_report"))] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the same questions before and after, and measure what was forgotten."""
    folder = home_of(home)
    run = Runs(folder).get(name)
    if probes is not None:
        read_probes(probes)  # a mistake in it is said now, not after the model has been loaded
    if data is not None:
        found = DatasetLibrary(folder.datasets).open(data)
        require_kind(found.name, found.kind, run.plan().objective)
    order = Order(task="eval", home=folder.root, lang=language(), run=run.name, probes=probes, data=data)
    proved = carry_out(order).proved
    if proved is None:
        raise ConflictError("cli.stopped_elsewhere", run.name)
    written = proved.report
    if report is not None:
        try:
            write_bytes(report, written.read_bytes())
        except OSError as error:
            raise UsageError("cli.report_refused", str(report), reason=error.strerror or str(error)) from error
        written = report
    proof = read_as(Proof, proved.proof)
    if as_json:
        left_out = {"unseen", "findings"} | (set() if proof.heldout.texts else {"continuations"})
        left_out |= set() if proof.preferences else {"preferences", "answered"}
        print_json({**proof.model_dump(mode="json", exclude=left_out), "report": str(written)})
        return
    results.print(proof.verdict(), soft_wrap=True)
    console.print(escape(t("cli.report_at", path=written)))


def chat(
    name: Annotated[str, typer.Argument(metavar="RUN|MODEL", help=t("cli.arg_version"))],
    message: Annotated[str | None, typer.Option("-m", "--message", help=t("cli.opt_message"))] = None,
    system: Annotated[str | None, typer.Option("--system", help=t("cli.opt_system"))] = None,
    home: HomeOption = None,
) -> None:
    """Talk to a run or a model in the terminal; with -m, print one answer and end."""
    folder = home_of(home)
    version = version_for(folder, name)
    served = ServedModel.from_version(folder.versions / version.id, system=system, log=folder.logs / "engine-chat.log")
    asyncio.run(_chat(served, message))


async def _chat(served: ServedModel, message: str | None) -> None:
    gateway = make_gateway(served)
    await gateway.start()
    try:
        await gateway.wait_ready(_READY_SECONDS)
        history: list[Message] = []
        if message is not None:
            await _answer(gateway, served, history, message)
            return
        console.print(escape(t("cli.chat_hint", name=served.version_name)))
        while True:
            try:
                question = await asyncio.to_thread(console.input, "[bold]› [/bold]")
            except EOFError:
                return
            if question.strip():
                await _answer(gateway, served, history, question)
    finally:
        await gateway.stop()


async def _answer(gateway: Gateway, served: ServedModel, history: list[Message], question: str) -> None:
    history.append(Message("user", question))
    answer = ""
    async for event in gateway.generate(served.request(tuple(history), SamplingOverrides())):
        if isinstance(event, TextPiece):
            answer += event.content
            typer.echo(event.content, nl=False)
    typer.echo()
    history.append(Message("assistant", answer))

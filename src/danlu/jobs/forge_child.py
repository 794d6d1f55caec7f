"""The worker process: reads an order from its first argument, does it, and tells what happens on standard output.

    python -m danlu.jobs.forge_child ORDER.json

It ends with its parent. SIGTERM asks it to stop after the step in hand, with a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from danlu.errors import DanluError
from danlu.i18n import use_language
from danlu.jobs import pipeline
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import Refused, Told
from danlu.logs import set_up_logging
from danlu.processes import watch_parent
from danlu.settings import Home


def work(order: Order, tell: pipeline.Tell, stopping: threading.Event) -> None:
    """Do an order."""
    home = Home(order.home)
    if order.run is not None:
        prepared = pipeline.reopen(home, order.run, tell, order.probes)
    else:
        assert order.recipe is not None
        prepared = pipeline.prepare(home, order.recipe, tell)
    if order.task == "plan":
        return
    if order.task == "eval":
        pipeline.prove_run(prepared, tell)
        return
    if not prepared.run.adapter.is_dir():
        report = pipeline.train(prepared, tell, stopping.is_set, resume=order.run is not None)
        if report.status == "stopped":
            return
    if order.task == "train" or stopping.is_set():
        return
    proof = pipeline.prove_run(prepared, tell)
    if not stopping.is_set():
        pipeline.publish(prepared, proof, tell, order.quant)


def main(argument: str) -> int:
    """Run the worker; return its exit status."""
    stopping = threading.Event()
    watch_parent(on_orphaned=lambda: os._exit(1))
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.model_validate_json(Path(argument).read_bytes())
    set_up_logging("warning", order.home / "logs", name="worker")
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    sys.stdout = sys.stderr  # libraries that print must not print between the messages

    def tell(message: Told) -> None:
        out.write(message.model_dump_json() + "\n")
        out.flush()

    with use_language(order.lang):
        try:
            work(order, tell, stopping)
        except DanluError as error:
            tell(Refused.of(error))
            return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

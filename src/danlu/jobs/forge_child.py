"""The worker process: reads an order from its first argument, does it, and tells what happens on standard output.

    python -m danlu.jobs.forge_child ORDER.json

It ends with its parent. SIGTERM asks it to stop: while it trains, after the step in hand and with a checkpoint;
elsewhere at once, because there is nothing to save.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path

from danlu.errors import DanluError
from danlu.i18n import use_language
from danlu.jobs import labelling, pipeline, preparing
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import Refused, Tell
from danlu.jobs.speaking import speak
from danlu.jobs.together import train_together
from danlu.logs import set_up_logging
from danlu.planning.devices import with_devices
from danlu.processes import watch_parent
from danlu.settings import Home


class Stop(BaseException):
    """The work was asked to stop where nothing has to be saved; raised by the signal's handler."""


class Stopping:
    """Whether the work is to stop, and whether it may end at once (``saving`` is not set).

    Attributes:
        asked: it is to stop.
        saving: it does so by itself, after saving.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.saving = threading.Event()

    def ask(self) -> None:
        """Ask it to stop.

        Raises:
            Stop: it can end here.
        """
        first = not self.asked.is_set()
        self.asked.set()
        if first and not self.saving.is_set():
            raise Stop


def work(order: Order, tell: Tell, stopping: Stopping) -> None:
    """Do an order."""
    home = Home(order.home)
    if order.task == "base":
        assert order.model is not None
        pipeline.publish_base(home, order.model, tell, order.quant)
        return
    if order.run is not None:
        prepared = preparing.reopen(home, order.run, tell, order.probes, order.data)
    else:
        assert order.recipe is not None
        prepared = preparing.prepare(home, order.recipe, tell)
    if order.task == "plan":
        return
    if order.task == "label":
        assert order.labels is not None
        labelling.label(prepared, order.labels, tell)
        return
    if order.task == "eval":
        pipeline.prove_run(prepared, tell, aside=order.probes is not None or order.data is not None)
        return
    if order.task == "publish":
        pipeline.publish(prepared, pipeline.proof_of(prepared.run), tell, order.quant)
        return
    if prepared.run.trained is None:
        stopping.saving.set()
        resume, several = order.run is not None, with_devices(prepared.plan, order.devices)
        if several is None:
            report = pipeline.train(prepared, tell, stopping.asked.is_set, resume=resume)
        else:
            name = prepared.run.name
            del prepared  # its model: the processes that train have their own
            report = train_together(home, name, several, tell, stopping.asked.is_set, resume=resume)
        stopping.saving.clear()
        if report.status == "stopped" or order.task == "train" or stopping.asked.is_set():
            return
        if several is not None:
            prepared = preparing.reopen(home, name, lambda _: None)
    if order.task == "train":
        return
    proof = pipeline.proof_of(prepared.run) or pipeline.prove_run(prepared, tell)
    pipeline.publish(prepared, proof, tell, order.quant)


def main(argument: str) -> int:
    """Run the worker; return its exit status."""
    gc.freeze()  # what the libraries made stays: not searched again each time a run collects what it left behind
    stopping = Stopping()
    watch_parent(on_orphaned=lambda: os._exit(1))
    signal.signal(signal.SIGTERM, lambda *_: stopping.ask())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.model_validate_json(Path(argument).read_bytes())
    set_up_logging("warning", order.home / "logs", name="worker")
    tell = speak()
    with use_language(order.lang):
        try:
            work(order, tell, stopping)
        except DanluError as error:
            tell(Refused.of(error))
            return error.exit_code
        except Stop:
            # Everything begun has been taken back on the way here; threads of a download are not waited for.
            os._exit(0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

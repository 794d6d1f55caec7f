"""Runs an order in a worker process while showing it on the terminal; Ctrl-C saves and stops, twice ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from danlu.cli.common import console
from danlu.cli.render import Display
from danlu.errors import MachineError
from danlu.i18n import t
from danlu.jobs.forge_order import Order
from danlu.jobs.runs import Runs
from danlu.jobs.worker import Worker
from danlu.settings import Home


def carry_out(order: Order) -> Display:
    """Do an order and return what was shown.

    Raises:
        DanluError: the worker's error.
        KeyboardInterrupt: the person pressed Ctrl-C twice, or the worker ended because of the first.
    """
    with Display(console) as display, Worker(order) as worker, _interrupts(worker) as interrupted:
        try:
            for message in worker.messages():
                display.show(message)
        except MachineError:
            # Asked to stop before it could listen, the worker just ends.
            if not interrupted.is_set():
                raise
        if interrupted.is_set():
            if display.run and Runs(Home(order.home)).get(display.run).status() == "stopped":
                console.print(t("cli.stopped_resume", run=display.run))
            raise KeyboardInterrupt
    return display


@contextmanager
def _interrupts(worker: Worker) -> Iterator[threading.Event]:
    interrupted = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        # In a thread of its own, which waits its turn: the signal may have come in the middle of another print, and
        # Python's files refuse to be entered twice by one thread.
        threading.Thread(target=console.print, args=(t("cli.stopping"),)).start()
        worker.ask_to_stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Starts a worker process and hands on what it tells, in the process of the command line or the server."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from danlu.errors import MachineError
from danlu.i18n import t
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import TOLD, Refused, Told
from danlu.processes import ChildProcess, python_child

_GRACE_SECONDS = 120.0
# How long a compute thread waits busily for the others. OpenMP's default is so long that on a machine that does
# anything else besides, each wait costs the others a time slice: a step that takes 5 s took 50 s (measured with two
# threads on two cores at a load of six).
_SPIN_COUNT = "1000"


class Worker:
    """One order being done in a process of its own.

    Use as a context manager: leaving it ends the process, whatever happened.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.log = order.home / "logs" / "worker-output.log"
        self._folder = tempfile.TemporaryDirectory(prefix="danlu-")
        path = Path(self._folder.name) / "order.json"
        path.write_text(order.model_dump_json(), encoding="utf-8")
        command = python_child("danlu.jobs.forge_child", str(path))
        environment = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", _SPIN_COUNT)}
        self._child = ChildProcess(command, log=self.log, stdout=subprocess.PIPE, env=environment)

    def messages(self) -> Iterator[Told]:
        """Yield what the worker tells until it ends.

        Raises:
            DanluError: the worker's own error.
            MachineError: it ended without a word (killed, or out of memory).
        """
        assert self._child.popen.stdout is not None
        for line in self._child.popen.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it spoke
            message = TOLD.validate_json(line)
            if isinstance(message, Refused):
                raise message.to_error()
            yield message
        if self._child.popen.wait() != 0:
            task = t(f"jobs.work_{self.order.task}")
            raise MachineError("ground.child_ended", task=task, how=self._child.ending(), log=str(self.log))

    def ask_to_stop(self) -> None:
        """Ask the worker to save a checkpoint and end; it is killed when it has not ended after two minutes."""
        if self._child.poll() is None:
            self._child.popen.terminate()
            timer = threading.Timer(_GRACE_SECONDS, self._child.kill)
            timer.daemon = True
            timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
        else:
            self._child.stop()
        self._folder.cleanup()

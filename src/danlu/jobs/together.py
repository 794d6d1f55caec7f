"""Starts the processes that train a run together, hands on what they tell, and ends all when one of them ends badly."""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from danlu.errors import DanluError, MachineError
from danlu.events import EventLog, Failed
from danlu.hardware import physical_cores
from danlu.i18n import language, t
from danlu.jobs.messages import TOLD, Refused, Tell, Told, Trained
from danlu.jobs.rank_order import RankOrder
from danlu.jobs.runs import RunFolder, Runs, TrainReport
from danlu.planning.plan import Together
from danlu.processes import ChildProcess, python_child
from danlu.settings import Home

_GLANCE_SECONDS: Final = 0.2
_SOON_SECONDS: Final = 30.0
_AFTERWARDS_SECONDS: Final = 2.0


def train_together(
    home: Home, name: str, together: Together, tell: Tell, should_stop: Callable[[], bool], *, resume: bool
) -> TrainReport:
    """Train a run in several processes.

    Args:
        home: the home folder.
        name: the run.
        together: how many processes, and how the weights lie among them.
        tell: receives what the first of them tells.
        should_stop: asked all the while; True lets them save a checkpoint and end.
        resume: go on from the newest checkpoint.

    Raises:
        DanluError: the error of one of them.
        MachineError: one of them ended without a word (killed, or out of memory); the run can be resumed.
    """
    run = Runs(home).get(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="danlu-")))
        order = RankOrder(
            home=home.root, lang=language(), run=name, together=together, resume=resume, store=folder / "store"
        )
        told = folder / "order.json"
        told.write_text(order.model_dump_json(), encoding="utf-8")
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, physical_cores() // together.devices))
        children: list[ChildProcess] = []
        for rank in range(together.devices):
            child = ChildProcess(
                python_child("danlu.jobs.rank_child", str(told), str(rank)),
                log=home.root / "logs" / "worker-output.log",
                stdout=subprocess.PIPE,
                env={"OMP_NUM_THREADS": threads},
            )
            stack.callback(_end, child)
            children.append(child)
        try:
            return _watch(children, tell, should_stop)
        except DanluError as error:
            for child in children:
                _end(child)
            _note_failure(run, error)
            raise


def _watch(children: Sequence[ChildProcess], tell: Tell, should_stop: Callable[[], bool]) -> TrainReport:
    """Hand on what the processes tell until all have ended."""
    said: queue.SimpleQueue[tuple[int, Told | None]] = queue.SimpleQueue()
    for rank, child in enumerate(children):
        threading.Thread(target=_listen, args=(rank, child, said), daemon=True).start()
    report: TrainReport | None = None
    listens, stopped, running = False, False, len(children)
    while running:
        if listens and not stopped and should_stop():
            stopped = True
            children[0].popen.terminate()
        try:
            rank, message = said.get(timeout=_GLANCE_SECONDS)
        except queue.Empty:
            continue
        if isinstance(message, Refused):
            raise message.to_error()
        if isinstance(message, Trained):
            report = message.report
        if message is not None:
            listens = True  # from its first word on it can be asked to stop
            tell(message)
            continue
        running -= 1
        if children[rank].wait(_SOON_SECONDS) != 0:
            raise _reason(children, said)
    assert report is not None, "the first process ended well and told no report"
    return report


def _reason(children: Sequence[ChildProcess], said: queue.SimpleQueue[tuple[int, Told | None]]) -> DanluError:
    """Return why they ended: what one of them said, else the first that was killed, else the first that broke.

    The others break soon, in the middle of what they do together.
    """
    until = time.monotonic() + _AFTERWARDS_SECONDS
    while time.monotonic() < until:
        try:
            _, message = said.get(timeout=_GLANCE_SECONDS)
        except queue.Empty:
            continue
        if isinstance(message, Refused):
            return message.to_error()
    broken = [(rank, child) for rank, child in enumerate(children) if child.poll() not in {None, 0}]
    rank, child = min(broken, key=lambda item: ((item[1].poll() or 0) > 0, item[0]))
    task = t("jobs.work_rank", rank=rank + 1, size=len(children))
    return MachineError("ground.child_ended", task=task, how=child.ending(), log=str(child.log))


def _listen(rank: int, child: ChildProcess, said: queue.SimpleQueue[tuple[int, Told | None]]) -> None:
    assert child.popen.stdout is not None
    for line in child.popen.stdout:
        if line.endswith(b"\n"):  # else it was killed while it spoke
            said.put((rank, TOLD.validate_json(line)))
    said.put((rank, None))


def _end(child: ChildProcess) -> None:
    if child.poll() is None:
        child.kill()
    else:
        child.stop()


def _note_failure(run: RunFolder, error: DanluError) -> None:
    """Write into the run why it ended, unless the process that noticed has done so itself."""
    events = run.events()
    if events and isinstance(events[-1].event, Failed):
        return
    with run.locked(), EventLog(run.events_path) as log:
        log.append(Failed(code=error.key, message=error.message()))

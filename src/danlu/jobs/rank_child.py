"""One of the processes that train a run together; the first tells what happens on standard output.

    python -m danlu.jobs.rank_child ORDER.json RANK

It ends with its parent. SIGTERM asks the first to stop after the step in hand, with a checkpoint; all then end.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

from danlu.errors import DanluError
from danlu.i18n import use_language
from danlu.jobs import pipeline, preparing
from danlu.jobs.messages import Refused, Tell
from danlu.jobs.rank_order import RankOrder
from danlu.jobs.speaking import speak
from danlu.logs import set_up_logging
from danlu.processes import watch_parent
from danlu.settings import Home
from danlu.training.ranks.group import joined, layout


def work(order: RankOrder, rank: int, tell: Tell, asked: list[int]) -> None:
    """Be one of the processes."""
    prepared = preparing.reopen(Home(order.home), order.run, lambda _: None)
    together = order.together
    with joined(rank, together.devices, order.store) as device:
        ranks = layout(together.strategy, device, offload=together.offload)
        if ranks.main:
            pipeline.train(prepared, tell, lambda: bool(asked), resume=order.resume, ranks=ranks)
        else:
            pipeline.help_train(prepared, ranks, resume=order.resume)


def main(argument: str, rank: int) -> int:
    """Run the process; return its exit status."""
    gc.freeze()  # as in the worker
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent(on_orphaned=lambda: os._exit(1))
    order = RankOrder.model_validate_json(Path(argument).read_bytes())
    set_up_logging("warning", order.home / "logs", name=f"worker-{rank}")
    tell = speak()
    with use_language(order.lang):
        try:
            work(order, rank, tell, asked)
        except DanluError as error:
            tell(Refused.of(error))
            # The others wait for this one in the middle of a step; leaving the group would wait for them.
            os._exit(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2])))

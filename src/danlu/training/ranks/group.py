"""Brings the processes of a run together, and gives the layout that a plan asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from accelerate import PartialState
from torch import distributed

from danlu.training.ranks.base import Ranks
from danlu.training.ranks.partitioned import Partitioned
from danlu.training.ranks.replicated import Replicated
from danlu.training.ranks.sharded import Sharded

Strategy: TypeAlias = Literal["ddp", "fsdp", "zero1", "zero2", "zero3"]


@contextmanager
def joined(rank: int, size: int, store: Path) -> Iterator[torch.device]:
    """Join the other processes of this machine, and leave them at the end.

    Args:
        rank: which of them this is.
        size: how many there are.
        store: a file, the same for all and not there before, over which they find each other.

    Yields:
        The device that this process computes on.
    """
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in own.items()})
    # Processes of one machine speak over its loopback: nothing of a run goes over a network.
    if os.name == "posix":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    # As everywhere in this version, what computes is the processor.
    state = PartialState(cpu=True, init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        yield state.device
    finally:
        distributed.destroy_process_group()


def layout(strategy: Strategy, device: torch.device, *, offload: bool) -> Ranks:
    """Return how this process works with the others that it has joined.

    Args:
        strategy: ``ddp`` gives every process the whole model; ``fsdp`` and ``zero3`` a part of each layer; ``zero1``
            and ``zero2`` the whole model and a part of what updates it.
        device: what it computes on.
        offload: keep in the computer's memory what a GPU does not need at the moment.
    """
    if strategy == "ddp":
        return Replicated()
    if strategy == "fsdp":
        return Sharded(device.type, offload=offload)
    stages: dict[Strategy, Literal[1, 2, 3]] = {"zero1": 1, "zero2": 2, "zero3": 3}
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    return Partitioned(stages[strategy], offload=offload)

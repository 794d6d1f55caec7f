"""Tensors in files: written one by one, also where no process has the whole of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from danlu.errors import TrainingError
from danlu.models.safetensors_stream import SafetensorsWriter, TensorSpec

_DTYPES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """A tensor of which each process has a part.

    Attributes:
        shape: that of the whole.
        dtype: its type.
        fetch: returns the whole; every process must call it.
    """

    shape: torch.Size
    dtype: torch.dtype
    fetch: Callable[[], torch.Tensor]


Stored: TypeAlias = torch.Tensor | Spread


def save_tensors(tensors: Mapping[str, Stored], path: Path | None) -> None:
    """Write tensors as safetensors, one by one, so that memory does not hold all of them twice.

    Args:
        tensors: what is written, by name.
        path: the file; None helps to bring together what is spread, and writes nothing.

    Raises:
        MachineError: the disk is full.
    """
    # The widest types first, so that each tensor lies where its type may be read.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    if path is None:
        for _, tensor in ordered:
            _whole(tensor)
        return
    specs = [TensorSpec(name, _DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in ordered]
    with SafetensorsWriter(path, specs) as writer:
        for name, tensor in ordered:
            data = _whole(tensor).detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data
            writer.write(name, memoryview(data))
        writer.close()


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        TrainingError: it is missing or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError("training.checkpoint_damaged", str(path.parent)) from error
    return tensors


def _whole(tensor: Stored) -> torch.Tensor:
    return tensor.fetch() if isinstance(tensor, Spread) else tensor

"""What this machine is and what it can do: cores, memory, disk, and measured speed in each number format.

Speeds are measured, not looked up: a processor's name says little inside a virtual machine. Not for GPUs' details.
"""

from __future__ import annotations

import contextlib
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ValidationError

from danlu.files import write_json

if TYPE_CHECKING:
    import torch

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# One product of this shape is 0.9 GFLOP: long enough to time, short enough to repeat on a slow machine.
_ROWS, _INNER, _COLUMNS = 512, 576, 1536
_SECONDS = 0.6


class _Measured(BaseModel):
    key: str
    gflops: dict[str, float]


@dataclass(frozen=True)
class Machine:
    """The machine as far as training is concerned.

    Attributes:
        processor: what the system calls the processor.
        cores: physical cores this process may use.
        memory_bytes: memory in all, or the container's limit.
        available_bytes: memory that can be used now.
        gpu: name of the first CUDA device, or None.
        gflops: measured matrix speed by dtype, in GFLOP/s.
    """

    processor: str
    cores: int
    memory_bytes: int
    available_bytes: int
    gpu: str | None
    gflops: dict[str, float]

    @property
    def fastest_dtype(self) -> str:
        """The dtype with the highest measured matrix speed."""
        return max(self.gflops, key=lambda name: self.gflops[name])


def physical_cores() -> int:
    """Return the physical cores that this process may run on, at least 1."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, allowed or 1))


def memory_limit() -> int:
    """Return the memory in bytes that this process may use at most: the machine's, or its container's."""
    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        if path.is_file():
            text = path.read_text(encoding="utf-8").strip()
            if text.isdigit():
                return min(total, int(text))
    return total


def available_memory() -> int:
    """Return the bytes of memory that can be used now without swapping."""
    return min(int(psutil.virtual_memory().available), memory_limit())


def measure_gflops() -> dict[str, float]:
    """Measure the matrix speed of this machine in fp32 and bf16, in GFLOP/s (less than a second).

    The two take turns, so that whatever else the machine does slows down both, and the fastest sample of each counts.
    """
    import torch

    left, right = torch.randn(_ROWS, _INNER), torch.randn(_COLUMNS, _INNER)
    pairs = {name: (left.to(dtype), right.to(dtype)) for name, dtype in _dtypes().items()}
    samples: dict[str, list[float]] = {name: [] for name in pairs}
    for matrices in pairs.values():
        torch.nn.functional.linear(*matrices)
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(samples["float32"]) < 3:
        for name, matrices in pairs.items():
            start = time.perf_counter()
            torch.nn.functional.linear(*matrices)
            samples[name].append(time.perf_counter() - start)
    return {name: 2 * _ROWS * _INNER * _COLUMNS / min(times) / 1e9 for name, times in samples.items()}


def inspect_machine(cache: Path | None = None) -> Machine:
    """Describe the machine; ``cache`` keeps the best speed ever measured on this processor.

    It is measured each time: a first measurement on a busy machine would stay for ever.
    """
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    key = f"{name}|{physical_cores()}|{torch.__version__}|{torch.backends.cpu.get_cpu_capability()}"
    return Machine(
        processor=name,
        cores=physical_cores(),
        memory_bytes=memory_limit(),
        available_bytes=available_memory(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        gflops=_best_speed(cache / "machine.json" if cache else None, key),
    )


def machine_as_dict(machine: Machine) -> dict[str, object]:
    """Return the machine as plain JSON values."""
    return asdict(machine)


def _best_speed(path: Path | None, key: str) -> dict[str, float]:
    speeds = measure_gflops()
    if path is None:
        return speeds
    stored = None
    if path.is_file():
        with contextlib.suppress(ValidationError):  # a damaged file is written anew
            stored = _Measured.model_validate_json(path.read_bytes())
    known = stored.gflops if stored is not None and stored.key == key else {}
    best = {name: max(speed, known.get(name, 0.0)) for name, speed in speeds.items()}
    if best != known:
        write_json(path, {"key": key, "gflops": best})
    return best


def _dtypes() -> dict[str, torch.dtype]:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}

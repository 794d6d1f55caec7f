"""What the processor can do, asked before native code that needs it is loaded. Not for its speed (``hardware``)."""

from __future__ import annotations

import platform
from pathlib import Path

from danlu.errors import MachineError

# The wheels of xllamacpp for x86 are compiled for these; without them the process dies with an illegal instruction.
_NEEDED = ("avx2", "fma", "f16c", "bmi2")


def missing_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the instruction sets the llama.cpp build needs and this processor lacks.

    Known on Linux x86 only; elsewhere nothing is reported as missing.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"} or not cpuinfo.is_file():
        return ()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            return tuple(name for name in _NEEDED if name not in flags)
    return ()


def require_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Check that the llama.cpp build runs on this processor.

    Raises:
        MachineError: an instruction set is missing.
    """
    missing = missing_features(cpuinfo)
    if missing:
        raise MachineError("serving.cpu_too_old", missing=", ".join(missing).upper())

"""Memory of the training process: how much it used at most, and how freed memory is kept for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import psutil

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_GLIBC_DEFAULT = 128 * 1024


def keep_freed_memory() -> bool:
    """Keep large freed blocks in the process instead of returning each to the system (glibc only).

    A training step frees and takes the same large blocks over and over; giving each back costs a page fault a page
    on the way in again (design.md section 5 measured 1.27 times the speed).

    Returns:
        Whether the C library understood.
    """
    libc = _glibc()
    if libc is None:
        return False
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def give_freed_memory_back() -> None:
    """Return what is free to the system, and from now on each large block as soon as it is freed (glibc only).

    Slower, but blocks that were kept for large pieces no longer stand in the way of others.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _GLIBC_DEFAULT)
        libc.mallopt(_M_TRIM_THRESHOLD, _GLIBC_DEFAULT)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library, where it is the one that has these functions."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            if libc.mallopt and libc.malloc_trim:
                return libc
    return None


def peak_rss(process: psutil.Process) -> int:
    """Return the largest resident memory in bytes that a process has had so far."""
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)

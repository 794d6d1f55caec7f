"""Runs pip in a child that ends with its parent (``python -m danlu.models.sources.pip_child download …``)."""

from __future__ import annotations

import os
import runpy
import sys

from danlu.processes import watch_parent


def main() -> int:
    """Run pip with this process's arguments and return its exit status."""
    watch_parent()
    sys.argv[0] = "pip"
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the thread that watches the parent sits in a read of stdin, which stops the interpreter's own end.
    os._exit(status)

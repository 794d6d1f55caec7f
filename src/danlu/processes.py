"""Child processes that cannot be orphaned.

A child holds the reading end of a pipe to its parent as its standard input. When the parent ends, however it ends,
the pipe closes and the child's watcher thread ends the child. Works alike on Linux, macOS and Windows.
Not for work inside a cluster, and not for shells: commands are argument lists.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from danlu.i18n import t


class ChildProcess:
    """A running child in a process group of its own (so that the terminal's Ctrl-C reaches only the parent).

    Args:
        command: program and arguments.
        log: file that the child's stderr is appended to; inherited when None.
        stdout: where the child's stdout goes (a ``subprocess`` constant or a file); to ``log`` when None.
        env: variables added to the parent's environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        stdout: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = tuple(command)
        self.log = log
        with contextlib.ExitStack() as stack:
            errors: IO[bytes] | None = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                errors = stack.enter_context(log.open("ab"))
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=stdout if stdout is not None else errors,
                stderr=errors,
                env={**os.environ, **(env or {})},
                start_new_session=os.name == "posix",
                creationflags=0 if os.name == "posix" else subprocess.CREATE_NEW_PROCESS_GROUP,  # type: ignore[attr-defined,unused-ignore]
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while the child runs."""
        return self.popen.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait at most ``timeout`` seconds for the end; return the exit status, or None when it still runs."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float = 10.0) -> int:
        """Ask the child to end, kill its whole group after ``grace`` seconds; return the exit status."""
        if self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.popen.terminate()
            if self.wait(grace) is None:
                self.kill()
        status = self.popen.wait()
        self._close()
        return status

    def kill(self) -> None:
        """End the child and everything in its process group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self.popen.kill()
        self.popen.wait()
        self._close()

    def ending(self) -> str:
        """Say how the child ended, for people."""
        return describe_exit(self.popen.returncode)

    def _close(self) -> None:
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def python_child(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a Danlu module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def watch_parent(on_orphaned: Callable[[], None] | None = None) -> None:
    """In a child: end this process when the parent is gone.

    Args:
        on_orphaned: called instead of ending at once, for a child that first puts its things in order.
    """
    descriptor = sys.stdin.fileno()

    def watch() -> None:
        # The descriptor, not sys.stdin: a thread that holds the lock of a buffered reader aborts the interpreter's end.
        with contextlib.suppress(OSError):
            while os.read(descriptor, 4096):
                pass
        if on_orphaned is not None:
            on_orphaned()
        else:
            os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def describe_exit(status: int | None) -> str:
    """Say in words what an exit status means (negative: ended by that signal)."""
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return t("ground.killed_by", signal=name)
    return t("ground.exit_status", status=status)

"""One program at a time works in a home folder; the operating system ends the claim when the process ends.

Not for the short exclusion around a migration (``migrate``), which other commands need while a server runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from danlu.errors import ConflictError, MachineError


class HomeLock:
    """The claim on a home folder, for a ``with`` statement or by ``acquire`` and ``release``.

    The process id stands in a file of its own, because Windows does not let others read a locked file.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._pid_file = home / ".danlu.pid"
        # A soft lock (a mere file) would outlive a crash, so a disk that knows no locks is refused instead.
        self._lock = FileLock(home / ".danlu.lock", thread_local=False, fallback_to_soft=False)

    @property
    def held(self) -> bool:
        """Whether this object holds the claim."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Claim the folder.

        Raises:
            ConflictError: another process has it.
            MachineError: the folder cannot be written, or its disk knows no locks.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._pid_file.write_text(str(os.getpid()), encoding="utf-8")
        except Timeout as error:
            raise ConflictError("ground.home_in_use", str(self._home), pid=self._owner()) from error
        except OSError as error:
            self._lock.release()
            reason = error.strerror or str(error)
            raise MachineError("ground.home_not_writable", str(self._home), reason=reason) from error

    def release(self) -> None:
        """Give the folder free; nothing happens when it is not claimed."""
        if self._lock.is_locked:
            self._pid_file.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _owner(self) -> str:
        """Return the process id of the other program, or ``?`` in the moment before it has written it."""
        try:
            return self._pid_file.read_text(encoding="utf-8").strip() or "?"
        except OSError:
            return "?"

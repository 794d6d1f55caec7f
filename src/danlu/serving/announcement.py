"""The one line that an engine's child process says on its standard output: its port, or why it cannot work.

Both sides of it: the child announces, the supervisor reads. Not for answers, which go over HTTP. It imports little,
because every start of a child waits for it.
"""

from __future__ import annotations

import json
import os
from typing import Final, NoReturn

from danlu.errors import DanluError, EngineError

KEY_VARIABLE: Final = "DANLU_ENGINE_KEY"


class UnusableError(EngineError):
    """The child has said why it cannot work; trying again would not help."""


class Announcer:
    """The child's side. Making one takes standard output away from everybody else: what they print goes to the log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def ready(self, port: int) -> None:
        """Say where answers can be asked for."""
        self._say({"port": port})
        self._out.close()

    def refuse(self, error: DanluError) -> NoReturn:
        """Say why there will be none, and end the process."""
        self._say({"error": error.key, "where": error.where, "params": error.params})
        os._exit(1)  # not sys.exit: native code that has loaded half of something has nothing to put in order

    def _say(self, words: dict[str, object]) -> None:
        print(json.dumps(words, default=str), file=self._out, flush=True)


def read_port(line: bytes) -> int:
    """Return the port that a child's line names.

    Raises:
        UnusableError: the child says why it cannot work.
        EngineError: the line is neither.
    """
    try:
        said = json.loads(line)
        if "error" in said:
            raise UnusableError(said["error"], said["where"], **said["params"])
        return int(said["port"])
    except (ValueError, TypeError, KeyError) as error:
        raise EngineError("serving.engine_garbage", reason=line[:100].decode(errors="replace")) from error

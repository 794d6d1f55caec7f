"""How a process speaks with the one that started it: messages on standard output, and nothing else there."""

from __future__ import annotations

import os
import sys

from danlu.jobs.messages import Tell, Told


def speak() -> Tell:
    """Keep standard output for messages, one JSON object a line, and return what tells them.

    What libraries print goes to standard error from now on.
    """
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    sys.stdout = sys.stderr

    def tell(message: Told) -> None:
        out.write(message.model_dump_json() + "\n")
        out.flush()

    return tell

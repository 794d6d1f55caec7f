"""The child process of the ``llamacpp`` engine: llama.cpp's own HTTP server, through xllamacpp, on a loopback port.

It lives in a process of its own because the library takes over signal handlers, keeps global state and aborts on an
assertion. It says by ``announcement`` where it listens; its key comes by environment. Not to be imported by anything.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from danlu.errors import DanluError, ModelError
from danlu.processes import watch_parent
from danlu.serving.announcement import KEY_VARIABLE, Announcer
from danlu.serving.cpu import require_features

# Tokens between two looks at the connections: the prompt of a caller who left is dropped after so many tokens, and
# other callers' answers go on in between.
_BATCH = 64


def main() -> None:
    """Serve until SIGTERM or until the parent is gone."""
    announcer = Announcer()
    die_with_parent()
    arguments = _parser().parse_args()
    watch_parent()
    try:
        require_features()
        port = _serve(arguments)
    except DanluError as error:
        announcer.refuse(error)
    announcer.ready(port)
    threading.Event().wait()


def die_with_parent() -> None:
    """Let the kernel end this process when the parent's end of stdin closes, on Linux.

    ``watch_parent`` does the same everywhere, but needs the interpreter, which the library holds while
    it loads weights.
    """
    if sys.platform != "linux":
        return
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO, whose default is to end


def _serve(arguments: argparse.Namespace) -> int:
    import xllamacpp

    weights: Path = arguments.weights
    if not weights.is_file():
        raise ModelError("serving.weights_missing", path=str(weights))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {arguments.model_id}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [os.environ.pop(KEY_VARIABLE)]
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.endpoint_slots = True
    parameters.n_parallel = arguments.slots
    parameters.n_ctx = arguments.slots * arguments.context
    parameters.kv_unified = False
    parameters.n_batch = parameters.n_ubatch = _BATCH
    parameters.cont_batching = True
    parameters.cache_ram_mib = 0  # the gateway names the slot, and then this cache of 8 GiB is never asked
    parameters.ctx_shift = False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.n_threads_http = arguments.slots + 4
    # Beside answers: the last token's state, which unlike a mean may be read in batches of any size.
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    parameters.warmup = True
    parameters.fit_params = False
    parameters.verbosity = 2
    global _server
    try:
        _server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ModelError("serving.weights_refused", path=str(weights), reason=str(error)) from error
    # The library has put its own handlers in place, which end slowly; this process has nothing to save.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port: int | None = urlsplit(_server.listening_address).port
    assert port is not None
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="danlu.serving.llamacpp_child")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--model-id", required=True)
    return parser


_server = None

if __name__ == "__main__":
    main()

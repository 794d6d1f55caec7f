"""Logging: readable lines on stderr and a rotating file in ``DANLU_HOME/logs``. Not for run events (``events``)."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

_FILE_BYTES = 5_000_000
_FILES_KEPT = 5
_QUIET = ("httpx", "httpcore", "urllib3", "aiohttp.access", "uvicorn.access", "transformers", "huggingface_hub", "peft")


def set_up_logging(level: str, folder: Path | None, *, name: str = "danlu") -> None:
    """Send log records to stderr (from ``level``) and to ``folder/NAME.log`` (from info, at most 30 MB in all)."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if level == "debug" else logging.INFO)
    root.handlers.clear()
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(level.upper())
    console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(console)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            folder / f"{name}.log", maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8", delay=True
        )
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"))
        root.addHandler(file)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)

"""Where the accounts of requests go: metrics, the log of answers, and what API keys have used.

The log is one JSON object a line in ``logs/answers.jsonl``; it holds no question and no answer unless
``DANLU_LOG_PROMPTS`` is set. Written by a task of its own, so that nobody waits for a disk or a database.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from danlu.accounts.keys import KeyRing
from danlu.errors import DanluError
from danlu.serving.accounting import AnswerRecord
from danlu.serving.metrics import Metrics

log = logging.getLogger(__name__)

ANSWERS_FILE: Final = "answers.jsonl"
_FILE_BYTES: Final = 5_000_000
_FILES_KEPT: Final = 5


class BookKeeper:
    """Takes accounts and brings them where they belong.

    Args:
        metrics: counted at once.
        keys: told what keys have used.
        folder: of the log.
    """

    def __init__(self, metrics: Metrics, keys: KeyRing, folder: Path) -> None:
        self._metrics = metrics
        self._keys = keys
        self._records: asyncio.Queue[AnswerRecord | None] = asyncio.Queue()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = logging.handlers.RotatingFileHandler(
            folder / ANSWERS_FILE, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8", delay=True
        )
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._task = asyncio.create_task(self._write(), name="write accounts")

    def enter(self, record: AnswerRecord) -> None:
        """Take an account; returns at once."""
        self._metrics.enter(record)
        self._records.put_nowait(record)

    async def close(self) -> None:
        """Write what is left and end."""
        self._records.put_nowait(None)
        await self._task
        self._file.close()

    async def _write(self) -> None:
        while (record := await self._records.get()) is not None:
            await asyncio.to_thread(self._write_one, record)

    def _write_one(self, record: AnswerRecord) -> None:
        line = json.dumps(_line(record), ensure_ascii=False)
        # A handler reports a full disk on stderr and goes on: an answer is worth more than a line about it.
        self._file.handle(logging.LogRecord("answers", logging.INFO, "", 0, line, None, None))
        if record.origin.key_id is None:
            return
        try:
            self._keys.used(
                record.origin.key_id,
                prompt_tokens=record.prompt_tokens,
                completion_tokens=record.completion_tokens,
            )
        except DanluError:
            log.exception("what key %s has used could not be saved", record.origin.key_id)


def _line(record: AnswerRecord) -> dict[str, Any]:
    origin = asdict(record.origin)
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": origin["request_id"],
        "route": origin["route"],
        "assistant": origin["name"],
        "version": record.model_id,
        "engine": record.engine,
        "key": origin["key_id"],
        "outcome": record.outcome,
        "error": record.error,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "queued_seconds": _rounded(record.queued_seconds),
        "first_token_seconds": _rounded(record.first_token_seconds),
        "seconds": _rounded(record.seconds),
    }
    if record.texts is not None:
        line["question"], line["answer"] = record.texts
    return line


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)

"""Encodes the data of runs into the home folder, and tells how far it is where that takes a while."""

from __future__ import annotations

import time
from typing import Final

from danlu.data.encoded import Encoder
from danlu.i18n import t
from danlu.jobs.messages import Advance, Tell
from danlu.settings import Home

# What is over sooner needs no bar.
_SILENT_SECONDS: Final = 2.0
_EVERY_SECONDS: Final = 0.2


def encoder_of(home: Home, tell: Tell) -> Encoder:
    """Return the encoder that keeps its tables in the home folder's cache."""
    began = told = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - began >= _SILENT_SECONDS and (now - told >= _EVERY_SECONDS or done == total):
            told = now
            tell(Advance(text=t("jobs.encoding"), done=done, total=total, unit="rows"))

    return Encoder(home.cache / "encoded", report)

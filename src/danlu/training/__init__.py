"""The training loop and what makes it fast; checkpoints that an interrupted run continues from.

``from danlu.training import fit`` loads torch; importing the package or its ``settings`` alone does not, so that the
command line and the server stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from danlu.training.loop import FitResult, Job, fit
    from danlu.training.settings import LoraSettings, TrainSettings
    from danlu.training.trained import attach

__all__ = ["FitResult", "Job", "LoraSettings", "TrainSettings", "attach", "fit"]

_HOMES: Final = {
    "attach": "trained",
    "FitResult": "loop",
    "Job": "loop",
    "fit": "loop",
    "LoraSettings": "settings",
    "TrainSettings": "settings",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"danlu.training.{_HOMES[name]}"), name)

"""What the processes are told that train a run together."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from danlu.i18n import Language
from danlu.planning.plan import Together


class RankOrder(BaseModel):
    """The same for all of them; which of them each is, it is told beside it.

    Attributes:
        home: the home folder.
        lang: language of the texts that are told.
        run: the run.
        together: how many they are, and how the weights lie among them.
        resume: go on from the newest checkpoint.
        store: a file over which they find each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    lang: Language
    run: str
    together: Together
    resume: bool
    store: Path

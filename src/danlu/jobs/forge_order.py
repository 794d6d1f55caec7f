"""What a worker process is asked to do; read by both sides, imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from danlu.i18n import Language
from danlu.recipe import Recipe


class LabelOrder(BaseModel):
    """Questions to be answered by a finished run.

    Attributes:
        questions: data set or file.
        out: the file that is written.
        samples: answers to each question.
        temperature: of all but the first, which is greedy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: str
    out: Path
    samples: int
    temperature: float


class Order(BaseModel):
    """What a worker is to do.

    Attributes:
        task: ``plan`` stops before training; ``train`` trains; ``eval`` proves a finished run;
            ``version`` goes on to proof and export; ``publish`` exports a finished run without a proof; ``base``
            makes a version of a base model as it is; ``label`` lets a finished run answer questions.
        home: the home folder.
        lang: language of the texts it tells.
        recipe: for a new run.
        model: of a ``base``: a name of the catalogue, or a folder.
        run: for a run that exists (resumed when it is not finished).
        probes: probe questions of an ``eval``, instead of the recipe's.
        data: data set or file of an ``eval``, instead of what was kept aside.
        quant: weights format of the export.
        labels: what a ``label`` answers, and how.
        devices: processes that go on with a run, instead of as many as were planned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["plan", "train", "eval", "version", "publish", "base", "label"]
    home: Path
    lang: Language
    recipe: Recipe | None = None
    model: str | None = None
    run: str | None = None
    probes: Path | None = None
    data: str | None = None
    quant: str = "q8_0"
    labels: LabelOrder | None = None
    devices: int | None = None

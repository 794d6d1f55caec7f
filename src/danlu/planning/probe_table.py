"""The table of a learning-rate probe, as it stands in plan.json. Making one: ``probe``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Trial(BaseModel):
    """One rate that was tried.

    Attributes:
        learning_rate: the rate.
        loss: mean loss of the judged rows afterwards, in nats a token; None when it was no number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float
    loss: float | None


class RateProbe(BaseModel):
    """What was tried, and what came of it.

    Attributes:
        steps: optimizer steps of each trial.
        judged: rows that were judged.
        heldout: whether these were kept aside, or else the rows learned in the trials.
        loss_before: their loss before any step.
        trials: from the lowest rate to the highest; the climb ends at a rate that gains far less.
        chosen: the rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    judged: int
    heldout: bool
    loss_before: float
    trials: tuple[Trial, ...]
    chosen: float

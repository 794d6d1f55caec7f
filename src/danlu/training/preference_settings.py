"""What a preference objective needs to know, every value decided. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

PreferenceObjectiveName = Literal["dpo", "kto", "orpo"]
DpoLoss = Literal["sigmoid", "ipo"]


class PreferenceSettings(BaseModel):
    """A preference objective, in TRL's terms.

    Attributes:
        objective: which one.
        beta: how strongly the model is held to where it began; of ORPO, the weight of the comparison (the paper's λ).
        loss_type: of DPO, ``sigmoid`` (arXiv 2305.18290) or ``ipo`` (arXiv 2310.12036).
        label_smoothing: of DPO with ``sigmoid``, the share of judgements taken to be wrong (arXiv 2403.00409 and the
            note "cDPO" by E. Mitchell).
        rpo_alpha: of DPO, the weight of the chosen answer's mean loss beside it (arXiv 2404.19733); None for none.
        desirable_weight: of KTO, how much a wanted answer counts.
        undesirable_weight: of KTO, how much an unwanted answer counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: PreferenceObjectiveName
    beta: float = 0.1
    loss_type: DpoLoss = "sigmoid"
    label_smoothing: float = 0.0
    rpo_alpha: float | None = None
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @property
    def paired(self) -> bool:
        """Whether it learns from pairs, and not from labelled answers."""
        return self.objective != "kto"

    @property
    def referenced(self) -> bool:
        """Whether it compares with the model as it was before the first step."""
        return self.objective != "orpo"

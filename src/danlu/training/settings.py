"""What the loop needs to know, every value decided. The planner makes these; the loop decides nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Scheduler = Literal["linear", "cosine", "constant"]
Dtype = Literal["float32", "bfloat16"]


class LoraSettings(BaseModel):
    """The adapter, in peft's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class TrainSettings(BaseModel):
    """One run of the loop.

    Attributes:
        learning_rate: peak learning rate.
        steps: optimizer steps.
        batch_size: examples of an optimizer step.
        token_budget: most packed tokens of a micro-batch; bounds memory, changes no result.
        share_prefix: compute the common beginning of a micro-batch's examples once.
        warmup_steps: steps in which the rate rises.
        eval_every: steps between two measurements.
        patience: measurements without improvement before stopping early; None never stops early.
        stop_loss: stop when the mean training loss of an epoch falls below it; None never does.
        checkpoint_every: steps between two checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float
    steps: int
    batch_size: int
    lora: LoraSettings = LoraSettings()
    token_budget: int = 4096
    share_prefix: bool = True
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    scheduler: Scheduler = "linear"
    warmup_steps: int = 0
    dtype: Dtype = "float32"
    seed: int = 42
    eval_every: int = 10
    patience: int | None = None
    stop_loss: float | None = None
    checkpoint_every: int = 50

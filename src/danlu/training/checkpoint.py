"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON, atomically.

A checkpoint is a folder ``step-000040``; a folder of that name is always complete. The newest two are kept, and
``best`` beside them, what was trained at the lowest held-out loss.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from danlu.errors import TrainingError
from danlu.files import new_folder
from danlu.training.adapter import load_tensors, save_tensors
from danlu.training.optimizers import Optimizers
from danlu.training.trained import TrainedModel, load_trained, save_trained, trainable

_KEPT = 2
_STATE = "state.json"
_OPTIMIZER = "optimizer.safetensors"
_NUMBER = "#"
BEST = "best"


class LoopState(BaseModel):
    """Where the loop stands.

    Attributes:
        step: optimizer steps done.
        loss_sum: sum of the steps' losses, for their mean.
        tokens: real tokens seen.
        examples: examples seen.
        seconds: time spent in steps.
        aside_seconds: time spent measuring, asking and saving.
        heldout_before: held-out loss before the first step.
        best_loss: lowest held-out loss so far.
        bad_evals: measurements since then.
        first_loss: loss of the first step.
        epoch_losses: losses of the latest epoch's steps.
        token_budget: tokens computed at once; None is what the plan says.
        due: the measurement after this step was interrupted and is still to be made.
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    loss_sum: float = 0.0
    tokens: int = 0
    examples: int = 0
    seconds: float = 0.0
    aside_seconds: float = 0.0
    heldout_before: float | None = None
    best_loss: float | None = None
    bad_evals: int = 0
    first_loss: float | None = None
    epoch_losses: list[float] = []
    token_budget: int | None = None
    due: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: ``runs/RUN/checkpoints``.
        base_model: name of the base model, written into adapters.
    """

    folder: Path
    base_model: str

    def save(self, model: TrainedModel, optimizer: Optimizers, state: LoopState) -> Path:
        """Write a checkpoint and remove all but the newest two.

        Raises:
            MachineError: the disk is full; earlier checkpoints are intact.
        """
        target = self.folder / f"step-{state.step:06d}"
        with new_folder(target) as partial:
            save_trained(model, partial, self.base_model)
            save_tensors(_optimizer_tensors(model, optimizer), partial / _OPTIMIZER)
            (partial / _STATE).write_text(state.model_dump_json(indent=2), encoding="utf-8")
        for old in self._all()[:-_KEPT]:
            shutil.rmtree(old)
        return target

    def save_best(self, model: TrainedModel) -> None:
        """Keep what is trained as the best so far."""
        with new_folder(self.folder / BEST) as partial:
            save_trained(model, partial, self.base_model)

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        found = self._all()
        return found[-1] if found else None

    def restore(self, folder: Path, model: TrainedModel, optimizer: Optimizers) -> LoopState:
        """Put what a checkpoint's model and optimizer had back and return where the loop stood.

        Raises:
            TrainingError: the checkpoint is damaged or belongs to another model.
        """
        try:
            state = LoopState.model_validate_json((folder / _STATE).read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingError("training.checkpoint_damaged", str(folder)) from error
        load_trained(model, folder)
        _restore_optimizer(model, optimizer, load_tensors(folder / _OPTIMIZER), folder)
        return state

    def restore_best(self, model: TrainedModel) -> bool:
        """Put the best state back, if one was kept."""
        folder = self.folder / BEST
        if folder.is_dir():
            load_trained(model, folder)
            return True
        return False

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())


def _optimizer_tensors(model: TrainedModel, optimizer: Optimizers) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as tensors ``NAME|KEY``; a number is a tensor without dimensions, ``NAME|KEY#``."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state(parameter).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}|{key}"] = value
            else:
                tensors[f"{name}|{key}{_NUMBER}"] = torch.tensor(value)
    return tensors


def _restore_optimizer(
    model: TrainedModel, optimizer: Optimizers, tensors: dict[str, torch.Tensor], folder: Path
) -> None:
    parameters = trainable(model)
    states: dict[str, dict[str, torch.Tensor | float]] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("|")
        if name not in parameters:
            raise TrainingError("training.adapter_mismatch", str(folder), key=name)
        state = states.setdefault(name, {})
        if key.endswith(_NUMBER):
            state[key.removesuffix(_NUMBER)] = tensor.item()
        else:
            state[key] = tensor
    for name, state in states.items():
        optimizer.put_state(parameters[name], state)

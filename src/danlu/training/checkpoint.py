"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON, atomically.

A checkpoint is a folder ``step-000040``; a folder of that name is always complete. The newest two are kept, and
``best`` beside them, what was trained at the lowest held-out loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from danlu.errors import TrainingError
from danlu.files import new_folder
from danlu.training.ranks.base import Keeper, Ranks
from danlu.training.tensors import Stored, load_tensors, save_tensors
from danlu.training.trained import TrainedModel, load_trained, save_finished, save_trained, trainable

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
        ranks: the processes that train; the first of them writes, all of them must call ``save`` and ``save_best``.
    """

    folder: Path
    base_model: str
    ranks: Ranks = field(default_factory=Ranks)

    def save(self, model: TrainedModel, optimizer: Keeper, state: LoopState) -> Path:
        """Write a checkpoint and remove all but the newest two.

        Raises:
            MachineError: the disk is full; earlier checkpoints are intact.
        """
        target = self.folder / f"step-{state.step:06d}"
        with self._written(target) as partial:
            self._save_trained(model, partial)
            save_tensors(self._optimizer_tensors(model, optimizer), None if partial is None else partial / _OPTIMIZER)
            if partial is not None:
                (partial / _STATE).write_text(state.model_dump_json(indent=2), encoding="utf-8")
        if self.ranks.main:
            for old in self._all()[:-_KEPT]:
                shutil.rmtree(old)
        return target

    def save_best(self, model: TrainedModel) -> None:
        """Keep what is trained as the best so far."""
        with self._written(self.folder / BEST) as partial:
            self._save_trained(model, partial)

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        found = self._all()
        return found[-1] if found else None

    def restore(self, folder: Path, model: TrainedModel) -> LoopState:
        """Put back what a checkpoint's model had and return where the loop stood.

        Raises:
            TrainingError: the checkpoint is damaged or belongs to another model.
        """
        try:
            state = LoopState.model_validate_json((folder / _STATE).read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingError("training.checkpoint_damaged", str(folder)) from error
        load_trained(model, folder)
        return state

    def restore_optimizer(self, folder: Path, model: TrainedModel, optimizer: Keeper) -> None:
        """Put back what a checkpoint's optimizer had, however its values were laid out when it was written.

        Raises:
            TrainingError: the checkpoint is damaged or belongs to another model.
        """
        _restore_optimizer(model, optimizer, load_tensors(folder / _OPTIMIZER), folder)

    @property
    def best(self) -> Path | None:
        """Folder of the best state, if one was kept."""
        folder = self.folder / BEST
        return folder if folder.is_dir() else None

    def restore_best(self, model: TrainedModel) -> bool:
        """Put the best state back, if one was kept."""
        if self.best is None:
            return False
        load_trained(model, self.best)
        return True

    def save_finished(self, model: TrainedModel, target: Path) -> None:
        """Write the best state, or the last where none was kept, as everybody can use it."""
        with self._written(target) as partial, self.ranks.whole_adapter():
            save_finished(model, partial, self.base_model, self.ranks.stored, self.best)

    @contextmanager
    def _written(self, target: Path) -> Iterator[Path | None]:
        """Give a new folder to the process that writes, None to the others."""
        if self.ranks.main:
            with new_folder(target) as partial:
                yield partial
        else:
            yield None

    def _save_trained(self, model: TrainedModel, folder: Path | None) -> None:
        with self.ranks.whole_adapter():
            save_trained(model, folder, self.base_model, self.ranks.stored)

    def _optimizer_tensors(self, model: TrainedModel, optimizer: Keeper) -> dict[str, Stored]:
        """Return the optimizer's state as tensors ``NAME|KEY``; a number has no dimensions, ``NAME|KEY#``."""
        tensors: dict[str, Stored] = {}
        for name, parameter in trainable(model).items():
            for key, value in optimizer.state(parameter).items():
                if isinstance(value, int | float):
                    tensors[f"{name}|{key}{_NUMBER}"] = torch.tensor(value)
                else:
                    tensors[f"{name}|{key}"] = self.ranks.stored(value) if isinstance(value, torch.Tensor) else value
        return tensors

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())


def _restore_optimizer(model: TrainedModel, optimizer: Keeper, tensors: dict[str, torch.Tensor], folder: Path) -> None:
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

"""What is trained in a model, whatever the method: chosen, saved, put back.

LoRA trains an adapter, which is kept in peft's format. ``full`` and ``freeze`` train weights of the model itself; of
these only the trained ones are kept, under the names that they have in the model, in ``weights.safetensors``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from danlu.errors import TrainingError
from danlu.models.checks import TRAINED_WEIGHTS
from danlu.training import adapter
from danlu.training.adapter import attach_lora
from danlu.training.settings import ADAPTER_METHODS, FreezeSettings, TrainSettings
from danlu.training.tensors import Stored, load_tensors, save_tensors

TrainedModel: TypeAlias = PeftModel | PreTrainedModel
"""A model with an adapter, or one whose own weights are trained."""

_VOCABULARY: Final = ("model.embed_tokens.weight", "lm_head.weight")
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")


def attach(model: PreTrainedModel, settings: TrainSettings, start: Path | None = None) -> TrainedModel:
    """Make ready to be trained what the settings say.

    Args:
        model: the base model; it is changed.
        settings: method, adapter and seed.
        start: folder of an adapter to go on from; None begins with a fresh one.

    Raises:
        TrainingError: nothing in the model has the names that are to be trained.
    """
    if settings.method in ADAPTER_METHODS:
        if start is not None:
            return adapter.continue_lora(model, start, settings.lora.lora_dropout)
        return attach_lora(model, settings.lora, settings.seed, settings.new_token_ids)
    for name, parameter in model.named_parameters():
        new = bool(settings.new_token_ids) and name in _VOCABULARY
        parameter.requires_grad_(settings.method == "full" or new or _is_thawed(name, model, settings.freeze))
    if not trainable(model):
        freeze = settings.freeze
        named = ", ".join((*freeze.modules, *freeze.extra_modules)) or f"freeze.layers = {freeze.layers}"
        raise TrainingError("training.nothing_thawed", "freeze", names=named)
    return model


def base_of(model: TrainedModel) -> PreTrainedModel:
    """Return the model itself, with an adapter in its layers if there is one."""
    if isinstance(model, PeftModel):
        base: PreTrainedModel = model.get_base_model()
        return base
    return model


def trainable(model: TrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name, in a fixed order."""
    return {name: value for name, value in sorted(model.named_parameters()) if value.requires_grad}


def as_it_is(tensor: torch.Tensor) -> Stored:
    """Return a weight that this process has whole."""
    return tensor


def save_trained(
    model: TrainedModel, folder: Path | None, base_model: str, stored: Callable[[torch.Tensor], Stored] = as_it_is
) -> None:
    """Write what is trained into an existing folder, to go on from it with ``load_trained``.

    Args:
        model: the model.
        folder: the folder; None where another process writes, which needs this one's parts.
        base_model: name of the base model, written into an adapter.
        stored: gives a weight of which each process has a part; adapters are whole.
    """
    if not isinstance(model, PeftModel):
        weights = {name: stored(value) for name, value in trainable(model).items()}
        save_tensors(weights, None if folder is None else folder / TRAINED_WEIGHTS)
    elif folder is not None:
        adapter.save_adapter(model, folder, base_model)


def load_trained(model: TrainedModel, folder: Path) -> None:
    """Put back what ``save_trained`` wrote.

    Raises:
        TrainingError: the weights are damaged or do not fit this model.
    """
    if isinstance(model, PeftModel):
        adapter.load_adapter_weights(model, folder)
        return
    state, own = load_tensors(folder / TRAINED_WEIGHTS), trainable(model)
    for key in sorted(state.keys() | own.keys()):
        if key not in state or key not in own or state[key].shape != own[key].shape:
            raise TrainingError("training.adapter_mismatch", str(folder), key=key)
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def save_finished(
    model: TrainedModel,
    folder: Path | None,
    base_model: str,
    stored: Callable[[torch.Tensor], Stored] = as_it_is,
    kept: Path | None = None,
) -> None:
    """Write what was trained as everybody can use it, as a change of the base model as it is on the disk.

    Args:
        model: the model.
        folder: an existing folder; None where another process writes.
        base_model: name of the base model.
        stored: gives a weight of which each process has a part.
        kept: folder of ``save_trained`` with the state that is wanted; None takes what the model has.
    """
    if not isinstance(model, PeftModel) and kept is None:
        save_trained(model, folder, base_model, stored)
    elif folder is None:
        return
    elif isinstance(model, PeftModel):
        adapter.save_finished(model, folder, base_model, kept)
    else:
        assert kept is not None
        shutil.copyfile(kept / TRAINED_WEIGHTS, folder / TRAINED_WEIGHTS)


def finished_folder(method: str) -> str:
    """Return under which name a run keeps what was trained: ``adapter`` or ``weights``."""
    return "adapter" if method in ADAPTER_METHODS else "weights"


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[PeftModel]:
    """Give a model as it was before its adapter."""
    with model.disable_adapter():
        yield model


def _is_thawed(name: str, model: PreTrainedModel, settings: FreezeSettings) -> bool:
    """Whether a weight is among the last (or, if negative, first) layers and of the named modules, or named beside."""
    if any(module in name for module in settings.extra_modules):
        return True
    found = _LAYER.search(name)
    if found is None:
        return False
    layer, rest = int(found[1]), found[2]
    count = int(model.config.num_hidden_layers)
    chosen = layer >= count - settings.layers if settings.layers > 0 else layer < -settings.layers
    return chosen and (settings.modules == () or any(module in rest for module in settings.modules))

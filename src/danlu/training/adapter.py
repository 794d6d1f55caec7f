"""The LoRA adapter: put into a model by peft, saved in peft's format. ``trained`` asks it for the method ``lora``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from transformers import PreTrainedModel

from danlu.errors import TrainingError
from danlu.training.settings import LoraSettings
from danlu.training.tensors import load_tensors, save_tensors

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
# Under this name a model carries the adapter that PiSSA began with.
_BEGINNING: Final = "danlu_beginning"


def attach_lora(
    model: PreTrainedModel, settings: LoraSettings, seed: int, new_token_ids: Sequence[int] = ()
) -> PeftModel:
    """Freeze ``model`` and put a fresh fp32 adapter into it; the same seed gives the same adapter.

    Args:
        model: the base model, in any dtype.
        settings: shape of the adapter.
        seed: seed of the random half of the adapter (the other half is zero, so nothing changes at first).
        new_token_ids: rows of the embedding that learn beside it, and of the head where that is one of its own.
    """
    target: str | list[str] = (
        settings.target_modules if isinstance(settings.target_modules, str) else [*settings.target_modules]
    )
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=target,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights="pissa" if settings.init_lora_weights == "pissa" else True,
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_rows(model, new_token_ids),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    if settings.init_lora_weights == "pissa":
        setattr(adapted, _BEGINNING, adapter_state(adapted))
    return adapted


def _token_rows(model: PreTrainedModel, ids: Sequence[int]) -> list[int] | dict[str, list[int]] | None:
    """Return which rows peft is to train: a head that shares the embedding follows it by itself."""
    if not ids:
        return None
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return [*ids] if shared else {"embed_tokens": [*ids], "lm_head": [*ids]}


def continue_lora(model: PreTrainedModel, folder: Path, dropout: float) -> PeftModel:
    """Freeze ``model`` and put a saved adapter into it, in fp32, to be trained on.

    Args:
        model: the base model, in any dtype.
        folder: the adapter in peft's format; its shape is taken as it is.
        dropout: share of its inputs dropped at random from now on.

    Raises:
        TrainingError: its weights are not those that its configuration speaks of.
    """
    config = LoraConfig.from_pretrained(str(folder))
    config.lora_dropout = dropout
    config.inference_mode = False
    # peft asks the hub for the configuration of a base that it does not find by this name.
    config.base_model_name_or_path = model.name_or_path
    # How it once began no longer matters, and some beginnings change the base.
    config.init_lora_weights = True
    with torch.random.fork_rng():
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True, config=config)
        except (RuntimeError, ValueError, SafetensorError) as error:
            raise TrainingError("training.adapter_mismatch", str(folder), key=str(error).splitlines()[0]) from error
    load_adapter_weights(adapted, folder)
    return adapted


def changes_base(model: PeftModel) -> bool:
    """Whether the base was changed when the adapter was put in (PiSSA), so that switching it off is not the base."""
    return hasattr(model, _BEGINNING)


def load_finished(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter into a base model, not to be trained.

    Args:
        model: the base model.
        folder: the adapter as ``save_finished`` wrote it.
    """
    adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    adapted.eval()
    return adapted


def save_finished(model: PeftModel, folder: Path, base_model: str, kept: Path | None) -> None:
    """Write the adapter as everybody can use it: as a change of the base model as it is on the disk.

    Args:
        model: a model with an adapter.
        folder: an existing folder.
        base_model: name of the base model, for the reader.
        kept: where ``save_adapter`` wrote the state that is wanted; None takes what the model has.

    PiSSA trains on a base without its largest singular values. ``s B A`` of the trained adapter less that of the
    beginning is one adapter of twice the rank on the whole base, the same function without a changed base.
    """
    trained = adapter_state(model) if kept is None else load_tensors(kept / _WEIGHTS)
    beginning: dict[str, torch.Tensor] | None = getattr(model, _BEGINNING, None)
    if beginning is None:
        _write(model.peft_config["default"].to_dict(), trained, folder, base_model)
        return
    state = {
        name: torch.cat([value, beginning[name]], dim=0)
        if ".lora_A." in name
        else torch.cat([value, -beginning[name]], dim=1)
        if ".lora_B." in name
        else value
        for name, value in trained.items()
    }
    config = model.peft_config["default"]
    factor = math.sqrt(2) if config.use_rslora else 2
    doubled = {"r": 2 * config.r, "lora_alpha": factor * config.lora_alpha, "init_lora_weights": True}
    _write(config.to_dict() | doubled, state, folder, base_model)


def save_adapter(model: PeftModel, folder: Path, base_model: str) -> None:
    """Write the adapter as it is into an existing folder in peft's format (safetensors).

    Args:
        model: a model with an adapter.
        folder: an existing folder.
        base_model: name of the base model, for the reader; peft, vLLM and LLaMA-Factory show it.
    """
    _write(model.peft_config["default"].to_dict(), adapter_state(model), folder, base_model)


def _write(values: dict[str, Any], state: dict[str, torch.Tensor], folder: Path, base_model: str) -> None:
    values["base_model_name_or_path"] = base_model
    values["inference_mode"] = True
    ready = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    (folder / _CONFIG).write_text(json.dumps(ready, indent=2, default=str) + "\n", encoding="utf-8")
    save_tensors(state, folder / _WEIGHTS)


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Put the weights of a saved adapter into the adapter of ``model``.

    Raises:
        TrainingError: the weights are damaged or do not fit this model.
    """
    state = load_tensors(folder / _WEIGHTS)
    own = adapter_state(model)
    for key in sorted(state.keys() | own.keys()):
        if key not in state or key not in own or state[key].shape != own[key].shape:
            raise TrainingError("training.adapter_mismatch", str(folder), key=key)
    set_peft_model_state_dict(model, state)


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return a copy of the adapter's weights by peft's names."""
    rows = model.peft_config["default"].trainable_token_indices
    # Of a vocabulary that has grown peft would save all rows beside those that are trained.
    state = get_peft_model_state_dict(model, save_embedding_layers=False if rows else "auto")
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}

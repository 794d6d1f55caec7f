"""The LoRA adapter: put into a model by peft, saved in peft's format."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from danlu.errors import TrainingError
from danlu.training.settings import LoraSettings

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


def attach_lora(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """Freeze ``model`` and put a fresh fp32 adapter into it; the same seed gives the same adapter.

    Args:
        model: the base model, in any dtype.
        settings: shape of the adapter.
        seed: seed of the random half of the adapter (the other half is zero, so nothing changes at first).
    """
    target: str | list[str] = (
        settings.target_modules if isinstance(settings.target_modules, str) else [*settings.target_modules]
    )
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def save_adapter(model: PeftModel, folder: Path, base_model: str) -> None:
    """Write the adapter into an existing folder in peft's format (safetensors).

    Args:
        model: a model with an adapter.
        folder: an existing folder.
        base_model: name of the base model, for the reader; peft, vLLM and LLaMA-Factory show it.
    """
    config = model.peft_config["default"]
    values = config.to_dict()
    values["base_model_name_or_path"] = base_model
    values["inference_mode"] = True
    ready = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    (folder / _CONFIG).write_text(json.dumps(ready, indent=2, default=str) + "\n", encoding="utf-8")
    save_tensors(adapter_state(model), folder / _WEIGHTS)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors through Python's own file, whose error of a full disk is an ``OSError``.

    ``save_file`` of safetensors hides it in an error of its own class. Costs a copy of the tensors in memory.
    """
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        TrainingError: it is missing or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError("training.checkpoint_damaged", str(path.parent)) from error
    return tensors


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
    state = get_peft_model_state_dict(model)
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name, in a fixed order."""
    return {name: value for name, value in sorted(model.named_parameters()) if value.requires_grad}

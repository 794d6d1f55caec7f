"""Loads tokenizers and models from checked folders: safetensors only, never code from the folder.

Heavy imports happen inside the functions, so that importing this module costs nothing and needs no torch.
Not for downloading (``library``) and not for the chat template (``chat_format``).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from danlu.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]

TEMPLATE_FILE: Final = "chat_template.jinja"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE_FILE,
    "added_tokens.json",
)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model folder exactly as its ``tokenizer.json`` says.

    The generic class is used on purpose: the model-specific classes of transformers 5 rebuild the pre-tokenizer and
    so silently change the ids of some tokenizers (transformers issue 45488, DeepSeek-R1 distils).

    Args:
        folder: a folder with ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    if not (folder / "tokenizer.json").is_file():
        raise ModelError("models.tokenizer_missing", str(folder))
    from transformers import PreTrainedTokenizerFast

    try:
        with quiet_transformers():
            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, json.JSONDecodeError) as error:
        raise ModelError("models.tokenizer_damaged", str(folder), reason=first_line(error)) from error


def load_config(folder: Path) -> PreTrainedConfig:
    """Load a model's configuration as transformers understands it, with what the file leaves out.

    Args:
        folder: a folder with ``config.json``, of a family that Danlu knows.
    """
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return config


def load_model(
    folder: Path, dtype: Dtype | str, attn: Attention | str | None = None, bits: Literal[4, 8] | None = None
) -> PreTrainedModel:
    """Load a causal language model from a folder, in evaluation mode, without gradients switched off.

    Weights are read through a memory map and converted tensor by tensor, so the peak is about the size of the model
    in ``dtype``.

    Args:
        folder: a folder with ``config.json`` and safetensors.
        dtype: the type of the weights in memory: ``float32``, ``bfloat16`` or ``float16``.
        attn: attention implementation of transformers; its own choice when None.
        bits: keep the matrices of the layers in 4 bits (NF4, double quantisation) or 8; ``dtype`` is then what they are
            multiplied in. Needs bitsandbytes. Not to be changed or exported.

    Raises:
        ModelError: the folder has no safetensors, needs code of its own, or does not fit its configuration.
    """
    from danlu.models.checks import check_config, check_no_pickle

    check_config(folder)
    check_no_pickle(folder)
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=getattr(torch, dtype),
                attn_implementation=attn,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                quantization_config=None if bits is None else _quantization(bits, getattr(torch, dtype)),
            )
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError("models.weights_do_not_load", str(folder), reason=first_line(error)) from error
    # Greedy decoding with sampling parameters left in generation_config.json prints a warning at every call.
    if model.generation_config is not None:
        model.generation_config.do_sample = False
        model.generation_config.temperature = None
        model.generation_config.top_p = None
        model.generation_config.top_k = None
    model.eval()
    return model


def _quantization(bits: Literal[4, 8], dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a message to people."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and advice of transformers; Danlu says what matters itself."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()

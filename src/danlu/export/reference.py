"""The source of an export as transformers computes it, base and adapter, held in memory whole.

``streamed`` gives the same from less memory, where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import psutil

from danlu.errors import ExportError
from danlu.models.architecture import read_architecture
from danlu.models.checks import TRAINED_WEIGHTS
from danlu.models.load import load_model
from danlu.models.new_tokens import grow_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Weights and what a forward pass over a short text needs on top.
_FP32_BYTES_PER_PARAMETER: Final = 4.6


class Reference(Protocol):
    """Something that knows what the source would say next."""

    def log_probs(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[np.ndarray]:
        """Return natural log-probabilities of the next token along some texts.

        Args:
            asked: for each text its token ids, shape [T], and the first position of interest, at least 1.

        Returns:
            For each text float32 ``[T - start + 1, V]``: row ``i`` is the distribution after ``ids[: start + i]``.
        """

    def continue_greedily(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        """Return what comes next, most likely token first, until a stop id (included) or ``new_tokens``."""


class TransformersReference:
    """A causal language model of transformers (with peft's adapter in it, if there is one)."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, base: Path, adapter: Path | None) -> TransformersReference:
        """Load base and adapter (or trained weights); float32 unless memory is short, then bfloat16.

        Raises:
            ModelError: the base does not load.
            ExportError: what was trained does not fit it.
        """
        needed = _FP32_BYTES_PER_PARAMETER * read_architecture(base).parameters
        dtype = "float32" if needed < psutil.virtual_memory().available else "bfloat16"
        model = load_model(base, dtype)
        if adapter is None:
            return cls(model)
        grow_for(model, adapter)
        if (adapter / TRAINED_WEIGHTS).is_file():
            from safetensors.torch import load_file

            found = model.load_state_dict(load_file(adapter / TRAINED_WEIGHTS), strict=False)
            if found.unexpected_keys:
                raise ExportError("export.adapter_misfit", str(adapter), name=found.unexpected_keys[0])
            return cls(model)
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
        adapted.eval()
        return cls(adapted)

    @classmethod
    def of(cls, model: PreTrainedModel | None) -> TransformersReference | None:
        """Return a model in memory as a reference, or None when there is none or its weights are not float32."""
        import torch

        if model is None or any(weight.dtype is not torch.float32 for weight in model.parameters()):
            return None
        return cls(model)

    def continue_greedily(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        """See ``Reference.continue_greedily``."""
        return [self._continue(ids, new_tokens, stop_ids) for ids in prompts]

    def log_probs(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[np.ndarray]:
        """See ``Reference.log_probs``."""
        return [self._log_probs(ids, start) for ids, start in asked]

    def _continue(self, ids: Sequence[int], new_tokens: int, stop_ids: frozenset[int]) -> list[int]:
        import torch

        prompt = torch.tensor([list(ids)])
        with torch.inference_mode():
            whole = self._model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=sorted(stop_ids),
                pad_token_id=min(stop_ids),
            )
        answer: list[int] = whole[0, len(ids) :].tolist()
        return answer

    def _log_probs(self, ids: Sequence[int], start: int) -> np.ndarray:
        import torch

        rows = len(ids) - start + 1
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            output = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False, logits_to_keep=rows)
            result: np.ndarray = torch.log_softmax(output.logits[0, -rows:].float(), dim=-1).numpy()
        self._model.train(was_training)
        return result

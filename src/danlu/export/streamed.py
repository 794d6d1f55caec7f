"""The source of an export, computed layer by layer from the files: a model larger than memory can still be compared.

The model is built without weights. Each decoder layer gets its own, in float32, when its turn comes and loses them when
it is through; of the embedding only the rows asked for are read, and the head is multiplied in groups of rows. The
adapter is peft's, laid over the base and not merged, so a mistake in merging shows. Slow for long answers: every pass
reads all weights. Not for training or serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from danlu.errors import ModelError
from danlu.export.reference import Reference, TransformersReference
from danlu.export.weights import ADAPTER_WEIGHTS, PIECE_VALUES, read_adapter_config
from danlu.models.checks import TRAINED_WEIGHTS, check_config, check_no_pickle, read_weights
from danlu.models.load import first_line, load_config, quiet_transformers
from danlu.models.new_tokens import EMBEDDING, token_rows
from danlu.models.safetensors_stream import read_header

if TYPE_CHECKING:
    import torch
    from torch import nn

_HEAD: Final = "lm_head.weight"
# What peft puts between the names of modules and of their weights.
_PEFT_PREFIX: Final = "base_model.model."
_PEFT_INFIXES: Final = (".base_layer", ".original_module")
_PEFT_NAME: Final = ".default"
_OF_LORA: Final = ".lora_"
_MAGNITUDE: Final = ".lora_magnitude_vector"


class StreamedReference:
    """A causal language model that reads its weights while it computes; made by ``open``.

    Args:
        model: the model without weights.
        files: gives the weights by their names in the files.
    """

    def __init__(self, model: Any, files: _Files) -> None:
        self._model = model
        self._files = files
        self._rows: torch.Tensor | None = None
        self._arranged: set[nn.Module] = set()
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._replace_head(causal)
        self._compact_embedding(causal.get_input_embeddings())
        for name, module in list(model.named_modules()):
            if _is_list_of_layers(module, causal.config.num_hidden_layers):
                for index, layer in enumerate(module):
                    self._fill_on_call(layer, f"{name}.{index}.")
        # What is left: norms, and heads and embeddings of unusual kinds.
        for name, module in list(model.named_modules()):
            own = [key for key, weight in module.named_parameters(recurse=False) if weight.is_meta]
            if own and module not in self._arranged:
                self._fill_on_call(module, f"{name}.")

    @classmethod
    def open(cls, base: Path, adapter: Path | None) -> StreamedReference | None:
        """Prepare a base model with an adapter or trained weights.

        Returns:
            None where the files name their tensors differently from the model, or tokens have rows of their own.

        Raises:
            ModelError: the base is damaged.
        """
        check_config(base)
        check_no_pickle(base)
        lora = adapter is not None and not (adapter / TRAINED_WEIGHTS).is_file()
        if adapter is not None and lora and token_rows(read_adapter_config(adapter, mergeable=False)):
            return None
        files = _Files(base, adapter)
        try:
            with quiet_transformers():
                model = _skeleton(base, adapter if lora else None)
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelError("models.weights_do_not_load", str(base), reason=first_line(error)) from error
        names = {_file_name(name) for name, weight in model.named_parameters() if weight.is_meta}
        return cls(model, files) if names <= files.names | {_HEAD} else None

    def log_probs(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[np.ndarray]:
        """See ``Reference.log_probs``; all texts go through the model at once."""
        import torch

        longest = max(len(ids) for ids, _ in asked)
        tokens = torch.zeros(len(asked), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        wanted = torch.zeros_like(tokens, dtype=torch.bool)
        for row, (ids, start) in enumerate(asked):
            tokens[row, : len(ids)] = torch.tensor(list(ids))
            mask[row, : len(ids)] = 1
            wanted[row, start - 1 : len(ids)] = True
        logits = self._logits(tokens, mask, wanted)
        counts = [len(ids) - start + 1 for ids, start in asked]
        return [torch.log_softmax(part, dim=-1).numpy() for part in torch.split(logits, counts)]

    def continue_greedily(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        """See ``Reference.continue_greedily``; the prompts go side by side, one pass a token."""
        import torch
        from transformers import DynamicCache

        longest = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(prompts):
            tokens[row, longest - len(ids) :] = torch.tensor(list(ids))
            mask[row, longest - len(ids) :] = 1
        cache = DynamicCache(config=self._model.config)
        answers: list[list[int]] = [[] for _ in prompts]
        for _ in range(new_tokens):
            wanted = torch.zeros_like(tokens, dtype=torch.bool)
            wanted[:, -1] = True
            best = self._logits(tokens, mask, wanted, cache).argmax(dim=-1)
            for answer, token in zip(answers, best.tolist(), strict=True):
                if not answer or answer[-1] not in stop_ids:
                    answer.append(token)
            if all(answer[-1] in stop_ids for answer in answers):
                break
            tokens, mask = best[:, None], torch.nn.functional.pad(mask, (0, 1), value=1)
        return answers

    def _logits(
        self, tokens: torch.Tensor, mask: torch.Tensor, wanted: torch.Tensor, cache: Any = None
    ) -> torch.Tensor:
        """Return float32 logits ``[N, V]`` of the wanted positions, row by row."""
        import torch

        self._rows = wanted
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with torch.inference_mode():
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits

    def _fill_on_call(self, module: nn.Module, prefix: str) -> None:
        """Let a module have its weights during its own forward pass only."""
        from torch import nn

        places = [
            (part, key, weight, _file_name(f"{prefix}{name}.{key}" if name else f"{prefix}{key}"))
            for name, part in module.named_modules()
            for key, weight in part.named_parameters(recurse=False)
            if weight.is_meta
        ]
        self._arranged.update(module.modules())

        def fill(*_: object) -> None:
            for part, key, _meta, name in places:
                part._parameters[key] = nn.Parameter(self._files.whole(name), requires_grad=False)

        def empty(*_: object) -> None:
            for part, key, meta, _name in places:
                part._parameters[key] = meta

        module.register_forward_pre_hook(fill)
        module.register_forward_hook(empty)

    def _compact_embedding(self, embedding: nn.Module) -> None:
        """Let an embedding read only the rows of the tokens at hand."""
        import torch
        from torch import nn

        if not isinstance(embedding, nn.Embedding) or not embedding.weight.is_meta:
            return
        self._arranged.add(embedding)
        embedding.padding_idx = None
        empty = embedding.weight

        def fill(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            ids, places = torch.unique(arguments[0], return_inverse=True)
            module.weight = nn.Parameter(self._files.rows(EMBEDDING, ids.tolist()), requires_grad=False)
            return (places, *arguments[1:])

        def clear(module: nn.Module, *_: object) -> None:
            module.weight = empty

        embedding.register_forward_pre_hook(fill)
        embedding.register_forward_hook(clear)

    def _replace_head(self, causal: Any) -> None:
        """Let the head give the logits of the wanted positions only, and read its rows in groups."""
        head = causal.get_output_embeddings()
        (name,) = [name for name, module in causal.named_children() if module is head]
        from torch import nn

        class Head(nn.Module):
            def __init__(self, inner: nn.Module | None, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
                super().__init__()
                self.inner = inner
                self._compute = forward

            def forward(self, hidden: torch.Tensor) -> torch.Tensor:
                return self._compute(hidden)

        if type(head) is nn.Linear and head.weight.is_meta and head.bias is None:
            key = _HEAD if _HEAD in self._files.names else EMBEDDING
            setattr(causal, name, Head(None, partial(self._head_in_groups, key)))
            return
        self._fill_on_call(head, f"{_PEFT_PREFIX if causal is not self._model else ''}{name}.")
        setattr(causal, name, Head(head, lambda hidden: head(hidden[self._rows])[None]))

    def _head_in_groups(self, key: str, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        wanted = hidden[self._rows]
        return torch.cat([wanted @ piece.T for piece in self._files.groups(key)], dim=-1)[None]


class _Files:
    """The tensors of a base model and of what was trained on it, read when asked for, in float32.

    Args:
        base: folder of the base model.
        trained: folder with trained weights, which take the place of the base's, or with an adapter; or None.

    Attributes:
        names: of all tensors.
    """

    def __init__(self, base: Path, trained: Path | None) -> None:
        from safetensors import safe_open

        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        names, _ = read_weights(base)
        paths = [base / name for name in names]
        if trained is not None:
            paths += [path for name in (TRAINED_WEIGHTS, ADAPTER_WEIGHTS) if (path := trained / name).is_file()]
        for path in paths:
            read_header(path)
            opened = self._stack.enter_context(safe_open(str(path), framework="pt"))
            self._files.update(dict.fromkeys(opened.keys(), opened))
        self.names = frozenset(self._files)

    def whole(self, name: str) -> torch.Tensor:
        """Return one tensor; the head of a model that shares it is the embedding."""
        key = EMBEDDING if name == _HEAD and name not in self.names else name
        tensor: torch.Tensor = self._files[key].get_tensor(key)
        return tensor.float()

    def rows(self, name: str, indices: Sequence[int]) -> torch.Tensor:
        """Return single rows of a matrix."""
        import torch

        kept = self._files[name].get_slice(name)
        return torch.cat([kept[index : index + 1].float() for index in indices])

    def groups(self, name: str) -> Iterator[torch.Tensor]:
        """Yield a matrix in groups of rows."""
        kept = self._files[name].get_slice(name)
        rows, columns = kept.get_shape()
        size = max(1, PIECE_VALUES // columns)
        for start in range(0, rows, size):
            yield kept[start : min(start + size, rows)].float()


def _skeleton(base: Path, adapter: Path | None) -> Any:
    """Return the model without weights, peft's adapter on it; buffers, which follow from the settings, are real."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    config = load_config(base)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.eval()
    if adapter is None:
        return model
    from peft import PeftModel

    # peft lays its own weights where those of the base are, which is nowhere; they come from the file as well.
    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=False, low_cpu_mem_usage=True)
    return adapted.eval().float()


def _file_name(name: str) -> str:
    """Return a parameter's name as the files have it."""
    if _OF_LORA in name:
        name = name.replace(_PEFT_NAME, "")
        return name.removesuffix(".weight") if _MAGNITUDE in name else name
    name = name.removeprefix(_PEFT_PREFIX)
    for infix in _PEFT_INFIXES:
        name = name.replace(infix, "")
    return name


def _is_list_of_layers(module: nn.Module, count: int) -> bool:
    from torch import nn

    return isinstance(module, nn.ModuleList) and len(module) == count


def open_reference(base: Path, adapter: Path | None) -> Reference:
    """Return base and adapter (or trained weights) as a reference, streamed where it can be, else loaded whole.

    Raises:
        ModelError: the base is damaged or does not load.
        ExportError: what was trained does not fit it.
    """
    return StreamedReference.open(base, adapter) or TransformersReference.load(base, adapter)

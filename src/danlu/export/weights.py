"""The tensors of a base model with an adapter worked in, one at a time: what every export is written from.

A tensor is read through a memory map, changed in float32, and handed on, large ones in groups of rows; memory is one
such piece and what it becomes.
The arithmetic is peft's own merge for LoRA, rank-stabilised LoRA and DoRA (arXiv 2106.09685, 2312.03732, 2402.09353);
adapters of other kinds are refused by name. Not for deciding where the tensors go.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from danlu.errors import ExportError, ModelError
from danlu.models.checks import TRAINED_WEIGHTS, read_weights
from danlu.models.new_tokens import EMBEDDING, token_rows
from danlu.models.safetensors_stream import TensorSpec, read_header

if TYPE_CHECKING:
    import torch

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
_PREFIX: Final = "base_model.model."
# 64 MB in float32; a few of these are in work at once.
PIECE_VALUES: Final = 2**24


@dataclass(frozen=True)
class _Lora:
    """One adapted matrix.

    Attributes:
        scale: factor of ``B A``.
        names: names in the adapter file by role: ``A``, ``B``, and for DoRA ``magnitude``.
        embedding: whether it adapts an embedding, whose product is stored transposed.
    """

    scale: float
    names: Mapping[str, str]
    embedding: bool


@dataclass(frozen=True)
class LoraParts:
    """What a plain LoRA adds to one matrix: ``scale · B A``.

    Attributes:
        name: of the matrix in the base.
        a: float32 ``[rank, columns]``.
        b: float32 ``[rows, rank]``.
        scale: factor of the product.
    """

    name: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float


@dataclass
class MergedWeights:
    """The tensors of ``base`` with the adapter in ``adapter`` worked in; use as a context manager.

    Attributes:
        base: folder of the base model.
        adapter: folder of a peft adapter or of trained weights, or None for the base alone.
        specs: the resulting tensors by name, in the order of the files; types are those of the base.
        untied: whether the adapter gives the head weights of its own although the base shares the embedding.
    """

    base: Path
    adapter: Path | None
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    untied: bool = False
    _files: dict[str, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _loras: dict[str, _Lora] = field(default_factory=dict)
    _replaced: dict[str, str] = field(default_factory=dict)
    _rows: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    _adapter_file: Any = None

    def __enter__(self) -> Self:
        """Open all files and match the adapter to the base.

        Raises:
            ExportError: the adapter does not fit the base, or is of a kind that cannot be merged.
            ModelError: the base is damaged.
        """
        from safetensors import safe_open

        files, self.specs = read_weights(self.base)
        for name in files:
            opened = self._stack.enter_context(safe_open(str(self.base / name), framework="pt"))
            self._files.update(dict.fromkeys(opened.keys(), opened))
        if self.adapter is not None and (self.adapter / TRAINED_WEIGHTS).is_file():
            header = read_header(self.adapter / TRAINED_WEIGHTS)
            self._adapter_file = self._stack.enter_context(safe_open(str(self.adapter / TRAINED_WEIGHTS), "pt"))
            for name, spec in header.items():
                self._take(self._target(name), name, spec)
        elif self.adapter is not None:
            config = read_adapter_config(self.adapter)
            header = read_header(self.adapter / ADAPTER_WEIGHTS)
            self._adapter_file = self._stack.enter_context(
                safe_open(str(self.adapter / ADAPTER_WEIGHTS), framework="pt")
            )
            self._match(config, header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor: in the base's own type when the adapter leaves it alone, else in float32."""
        if name in self._replaced:
            replaced: torch.Tensor = self._adapter_file.get_tensor(self._replaced[name])
            return replaced
        weight: torch.Tensor = self._files[name].get_tensor(name)
        if name in self._rows:
            return self._with_rows(weight, name)
        lora = self._loras.get(name)
        return weight if lora is None else self._merge(weight, lora, slice(None))

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """Yield one tensor in groups of whole rows, so that a vocabulary of gigabytes passes through little memory."""
        spec = self.specs[name]
        size = max(1, PIECE_VALUES // max(1, math.prod(spec.shape[1:])))
        if not spec.shape or spec.shape[0] <= size or name in self._rows:
            yield self.tensor(name)
            return
        if name in self._replaced:
            kept = self._adapter_file.get_slice(self._replaced[name])
        else:
            kept = self._files[name].get_slice(name)
        lora = self._loras.get(name)
        for start in range(0, spec.shape[0], size):
            rows = slice(start, min(start + size, spec.shape[0]))
            yield kept[rows] if lora is None else self._merge(kept[rows], lora, rows)

    def tensors(self) -> Iterator[tuple[TensorSpec, torch.Tensor]]:
        """Yield every tensor, one at a time."""
        for name, spec in self.specs.items():
            yield spec, self.tensor(name)

    def plain_loras(self) -> Iterator[LoraParts]:
        """Yield what a plain LoRA adds, matrix by matrix.

        Raises:
            ExportError: the adapter does more than that.
        """
        odd = [*self._replaced, *self._rows]
        odd += [name for name, lora in self._loras.items() if lora.embedding or "magnitude" in lora.names]
        if self.untied:
            odd.append("lm_head.weight")
        if odd:
            raise ExportError("export.adapter_gguf_kind", self._where, kind=odd[0])
        for name, lora in self._loras.items():
            a, b = (self._adapter_file.get_tensor(lora.names[role]).float() for role in ("A", "B"))
            yield LoraParts(name, a, b, lora.scale)

    def has_shared_head(self) -> bool:
        """Say whether the head is the embedding, also where the files hold it a second time.

        A head that differs is obeyed by transformers even where the configuration says that it is shared.
        """
        head = "lm_head.weight"
        if head not in self.specs:
            return True
        return self.specs[head].shape == self.specs[EMBEDDING].shape and all(
            bool((one == other).all()) for one, other in zip(self.pieces(head), self.pieces(EMBEDDING), strict=True)
        )

    def _merge(self, weight: torch.Tensor, lora: _Lora, rows: slice) -> torch.Tensor:
        """Return ``rows`` of a matrix, of which ``weight`` is the base's part, with the adapter worked in."""

        def part(role: str) -> torch.Tensor:
            value: torch.Tensor = self._adapter_file.get_tensor(lora.names[role])
            return value.float()

        left, right = (part("A").T[rows], part("B").T) if lora.embedding else (part("B")[rows], part("A"))
        merged = weight.float() + (left @ right) * lora.scale
        if "magnitude" in lora.names:
            merged *= (part("magnitude")[rows] / merged.norm(dim=1)).unsqueeze(1)
        return merged

    def _match(self, config: Mapping[str, Any], header: Mapping[str, TensorSpec]) -> None:
        """Find for each tensor of the adapter what it changes; nothing may be left over."""
        grouped: dict[str, dict[str, str]] = {}
        for key in header:
            module, role = _role(key)
            if role == "replace":
                self._replace(module, key, header[key])
            elif role == "rows":
                self._take_rows(config, module, key, header[key])
            else:
                grouped.setdefault(module, {})[role] = key
        for module, names in grouped.items():
            if module == "lm_head" and self._tied:
                self._untie()
            target = self._target(f"{module}.weight")
            embedding = "embedding_A" in names
            roles = {role.removeprefix("embedding_"): key for role, key in names.items()}
            if not {"A", "B"} <= set(roles) or (set(roles) - {"A", "B", "magnitude"}):
                raise ExportError("export.adapter_kind", self._where, kind=f"{module}: {', '.join(sorted(roles))}")
            rank = header[roles["A"]].shape[0]
            shape = (header[roles["B"]].shape[0], header[roles["A"]].shape[1])
            if self.specs[target].shape != (shape[::-1] if embedding else shape):
                raise ExportError("export.adapter_misfit", self._where, name=target)
            if self._tied and target == "model.embed_tokens.weight":
                # peft leaves the shared head as it was, so the result is no longer tied.
                self._untie()
            self._loras[target] = _Lora(_scale(config, module, rank), roles, embedding)

    def _replace(self, module: str, key: str, spec: TensorSpec) -> None:
        name = f"{module}.weight"
        if name == "lm_head.weight" and name not in self.specs:
            self._untie()
        self._take(self._target(name), key, spec)

    def _take_rows(self, config: Mapping[str, Any], module: str, key: str, spec: TensorSpec) -> None:
        """Note rows of the vocabulary that were trained one by one; the vocabulary may have grown for them."""
        target = self._target(f"{module}.weight")
        ids = token_rows(config).get(module.rpartition(".")[2], [])
        rows, width = self.specs[target].shape
        if spec.shape != (len(ids), width):
            raise ExportError("export.adapter_misfit", self._where, name=target)
        self._rows[target] = (tuple(ids), key)
        self._grow(target, max(rows, max(ids) + 1))

    def _grow(self, target: str, rows: int) -> None:
        spec = self.specs[target]
        if rows > spec.shape[0]:
            self.specs[target] = replace(spec, shape=(rows, *spec.shape[1:]))
            config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
            if target == EMBEDDING and config.get("tie_word_embeddings"):
                # A second copy of a shared head, which some files hold, would have too few rows.
                self.specs.pop("lm_head.weight", None)

    def _with_rows(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        ids, key = self._rows[name]
        grown = weight.new_zeros(self.specs[name].shape, dtype=weight.dtype).float()
        grown[: weight.shape[0]] = weight.float()
        grown[list(ids)] = self._adapter_file.get_tensor(key).float()
        return grown

    def _take(self, target: str, key: str, spec: TensorSpec) -> None:
        """Put a tensor of what was trained in the place of one of the base."""
        if target in {EMBEDDING, "lm_head.weight"} and spec.shape[1:] == self.specs[target].shape[1:]:
            self._grow(target, spec.shape[0])
        if self.specs[target].shape != spec.shape:
            raise ExportError("export.adapter_misfit", self._where, name=target)
        self._replaced[target] = key

    def _untie(self) -> None:
        embedding = self.specs["model.embed_tokens.weight"]
        self.specs["lm_head.weight"] = TensorSpec("lm_head.weight", embedding.dtype, embedding.shape)
        self._files["lm_head.weight"] = _Alias(self._files["model.embed_tokens.weight"], "model.embed_tokens.weight")
        self.untied = True

    @property
    def _tied(self) -> bool:
        return "lm_head.weight" not in self.specs

    def _target(self, name: str) -> str:
        if name not in self.specs:
            raise ExportError("export.adapter_misfit", self._where, name=name)
        return name

    @property
    def _where(self) -> str:
        return str(self.adapter)


@dataclass(frozen=True)
class _Alias:
    """Gives one tensor of a file under any name."""

    file: Any
    name: str

    def get_tensor(self, _: str) -> torch.Tensor:
        tensor: torch.Tensor = self.file.get_tensor(self.name)
        return tensor

    def get_slice(self, _: str) -> Any:
        return self.file.get_slice(self.name)


def read_adapter_config(adapter: Path, *, mergeable: bool = True) -> dict[str, Any]:
    """Read ``adapter_config.json`` and, if it is to be merged, refuse what the merge here does not know.

    Raises:
        ExportError: no adapter there, or one of another kind.
    """
    path = adapter / ADAPTER_CONFIG
    if (adapter / TRAINED_WEIGHTS).is_file():
        raise ExportError("export.no_adapter_made", str(adapter))
    if not path.is_file() or not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ExportError("export.adapter_missing", str(adapter))
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError("models.config_damaged", str(path), reason=str(error)) from error
    unknown = [
        name
        for name, odd in (
            (str(config.get("peft_type")), config.get("peft_type") != "LORA"),
            ("bias", config.get("bias", "none") != "none"),
            ("lora_bias", bool(config.get("lora_bias"))),
            ("fan_in_fan_out", bool(config.get("fan_in_fan_out"))),
            ("layer_replication", bool(config.get("layer_replication"))),
        )
        if odd
    ]
    if unknown and mergeable:
        raise ExportError("export.adapter_kind", str(path), kind=", ".join(unknown))
    return config


def _role(key: str) -> tuple[str, str]:
    """Split a name of an adapter file into the module and what the tensor is for it."""
    name = key.removeprefix(_PREFIX)
    for suffix, role in (
        (".lora_A.weight", "A"),
        (".lora_B.weight", "B"),
        (".lora_embedding_A", "embedding_A"),
        (".lora_embedding_B", "embedding_B"),
        (".lora_magnitude_vector.weight", "magnitude"),
        (".lora_magnitude_vector", "magnitude"),
        (".token_adapter.trainable_tokens_delta", "rows"),
        (".weight", "replace"),
    ):
        if name.endswith(suffix):
            return name.removesuffix(suffix), role
    raise ExportError("export.adapter_kind", key, kind=key)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of the module's name, as peft does it."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def total_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the size of tensors together."""
    return sum(spec.bytes for spec in specs)

"""How each family of models stands in a GGUF file: metadata, names of tensors, and what is changed in them.

Families: llama and mistral (one architecture in llama.cpp), qwen2, qwen3, gemma3 (text). Another is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, TensorNameMap, get_tensor_name_map

from danlu.errors import ExportError
from danlu.models.architecture import Architecture, read_architecture
from danlu.models.load import load_config

if TYPE_CHECKING:
    import torch

_ARCHITECTURES: Final = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "gemma3_text": MODEL_ARCH.GEMMA3,
}
# Buffers that old checkpoints carry along; they follow from the configuration.
_IGNORED: Final = (".rotary_emb.inv_freq",)
_ROPE_FACTORS: Final = "rope_freqs.weight"


@dataclass(frozen=True)
class Family:
    """A model's family with its configuration.

    Attributes:
        arch: the architecture in llama.cpp.
        shape: the model's shape.
        config: the text configuration of transformers, with rotary settings in its current form.
    """

    arch: MODEL_ARCH
    shape: Architecture
    config: Any

    @property
    def name(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(MODEL_ARCH_NAMES[self.arch])

    @cached_property
    def _names(self) -> TensorNameMap:
        return get_tensor_name_map(self.arch, self.shape.layers)

    def gguf_name(self, name: str) -> str | None:
        """Return the name of a tensor in the file, or None when it does not go there.

        Raises:
            ExportError: the tensor is not part of this architecture.
        """
        if name.endswith(_IGNORED):
            return None
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ExportError("export.tensor_unknown", name, family=self.name)
        return str(found)

    def convert(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor as llama.cpp computes with it."""
        if self.arch is MODEL_ARCH.LLAMA and ".q_proj." in name:
            return pair_rotary_rows(tensor, self.shape.heads)
        if self.arch is MODEL_ARCH.LLAMA and ".k_proj." in name:
            return pair_rotary_rows(tensor, self.shape.kv_heads)
        if self.arch is MODEL_ARCH.GEMMA3 and name.endswith("norm.weight"):
            return tensor.float() + 1  # Gemma multiplies by (1 + weight), llama.cpp by the weight
        return tensor

    def keeps_rows(self, name: str) -> bool:
        """Say whether ``convert`` gives the same for a tensor's rows in groups as for all at once."""
        return not (self.arch is MODEL_ARCH.LLAMA and (".q_proj." in name or ".k_proj." in name))

    def write_metadata(self, writer: GGUFWriter) -> None:
        """Add the architecture's metadata to a GGUF file.

        Raises:
            ExportError: the rotary embedding is scaled in a way that llama.cpp does not know.
        """
        shape = self.shape
        writer.add_context_length(self._context())
        writer.add_embedding_length(shape.hidden_size)
        writer.add_block_count(shape.layers)
        writer.add_feed_forward_length(shape.intermediate_size)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_layer_norm_rms_eps(float(self.config.rms_norm_eps))
        writer.add_vocab_size(shape.vocab_size)
        rope = self._rope()
        writer.add_rope_dimension_count(int(shape.head_dim * rope.get("partial_rotary_factor", 1.0)))
        writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
        if self.arch is MODEL_ARCH.GEMMA3:
            writer.add_sliding_window(int(self.config.sliding_window))
        self._write_scaling(writer, rope)

    def rope_factors(self) -> torch.Tensor | None:
        """Return by how much each rotary frequency is divided, float32 ``[head_dim / 2]``, for Llama 3's scaling.

        The formula is that of transformers (``modeling_rope_utils``, ``llama3``): low frequencies are divided by
        ``factor``, high ones are left, those between go over smoothly.
        """
        import torch

        rope = self._rope()
        if rope.get("rope_type") != "llama3":
            return None
        exponents = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float64) / self.shape.head_dim
        wavelength = 2 * math.pi * float(rope["rope_theta"]) ** exponents
        factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        original = float(rope["original_max_position_embeddings"])
        smooth = ((original / wavelength - low) / (high - low)).clamp(0, 1)
        return (1 / ((1 - smooth) / factor + smooth)).float()

    def _context(self) -> int:
        # Attention beyond a sliding window is not in llama.cpp's llama and qwen2; inside of it there is no difference.
        window = None if self.arch is MODEL_ARCH.GEMMA3 else getattr(self.config, "sliding_window", None)
        used = getattr(self.config, "use_sliding_window", True)
        return min(self.shape.max_context, int(window)) if window and used else self.shape.max_context

    def _rope(self) -> dict[str, Any]:
        rope = dict(self.config.rope_parameters or {})
        # Gemma 3 has one set for each kind of layer; llama.cpp has the local one built in.
        return dict(rope["full_attention"]) if "full_attention" in rope else rope

    def _write_scaling(self, writer: GGUFWriter, rope: dict[str, Any]) -> None:
        kind = rope.get("rope_type", "default")
        if kind in {"default", "llama3"}:
            return
        if kind not in {"linear", "yarn"}:
            raise ExportError("export.rope_unknown", what=str(kind))
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def read_family(base: Path) -> Family:
    """Read which family the model in ``base`` belongs to.

    Raises:
        ExportError: none that can be exported.
        ModelError: the configuration is damaged.
    """
    shape = read_architecture(base)
    if shape.type not in _ARCHITECTURES:
        raise ExportError("export.family_unknown", str(base), type=shape.type, known=", ".join(_ARCHITECTURES))
    return Family(_ARCHITECTURES[shape.type], shape, load_config(base))


def pair_rotary_rows(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the rows of q or k into llama.cpp's order: the two halves of each head, row by row in turn.

    Args:
        weight: ``[heads * head_dim, …]`` (a weight or a bias).
        heads: number of heads (of key heads for k).
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)

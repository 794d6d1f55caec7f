"""Writes a plain LoRA adapter as a GGUF file of its own, which llama.cpp lays over a GGUF of the base.

llama.cpp adds ``alpha / rank · B A`` with one ``alpha`` for all matrices; what a run scales otherwise (rank-stabilised,
patterns of ranks and alphas) is worked into ``B``. DoRA, trained embeddings, heads and tokens have no place in such a
file and are refused by name. Not for merged weights (``gguf_export``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFType, GGUFWriter, Keys

from danlu import __version__
from danlu.errors import ExportError
from danlu.export.gguf_families import Family, read_family
from danlu.export.gguf_storage import Quant, file_type, pack
from danlu.export.merge import WrittenFile
from danlu.export.weights import LoraParts, MergedWeights, read_adapter_config
from danlu.files import disk_errors, sha256_of

if TYPE_CHECKING:
    import torch

_TYPES: Final[dict[Quant, Type]] = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16}
ADAPTER_QUANTS: Final = tuple(_TYPES)


def write_adapter_gguf(base: Path, adapter: Path, path: Path, quant: Quant = "f16") -> WrittenFile:
    """Write an adapter as GGUF.

    Args:
        base: folder of the base model it was trained on.
        adapter: folder of the peft adapter.
        path: the file to write; its folder exists.
        quant: ``f32``, ``f16`` or ``bf16``.

    Raises:
        ExportError: the family or the kind of adapter has no form in GGUF, or the storage type is another.
        MachineError: not enough room on the disk.
    """
    if quant not in _TYPES:
        raise ExportError("export.adapter_quant", quant=quant, known=", ".join(_TYPES))
    kind = _TYPES[quant]
    family = read_family(base)
    alpha = float(read_adapter_config(adapter)["lora_alpha"])
    writer = GGUFWriter(None, family.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_description(f"Danlu {__version__}")
    writer.add_file_type(file_type(quant))
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    with MergedWeights(base, adapter) as weights:
        for parts in weights.plain_loras():
            _add(writer, family, parts, alpha, kind)
    with disk_errors(path):
        try:
            writer.write_header_to_file(path)
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.flush()
        finally:
            writer.close()
    return WrittenFile(path.name, path.stat().st_size, sha256_of(path))


def _add(writer: GGUFWriter, family: Family, parts: LoraParts, alpha: float, kind: Type) -> None:
    name = family.gguf_name(parts.name)
    if name is None:
        raise ExportError("export.adapter_gguf_kind", kind=parts.name)
    rank = parts.a.shape[0]
    # The rows of B are those of the matrix, so llama.cpp's order of rows is made in B.
    b = family.convert(parts.name, parts.b * (parts.scale * rank / alpha))
    for suffix, values in (("lora_a", parts.a), ("lora_b", b)):
        writer.add_tensor(f"{name}.{suffix}", _packed(f"{name}.{suffix}", values, kind), raw_dtype=kind)


def _packed(name: str, values: torch.Tensor, kind: Type) -> np.ndarray:
    # As bytes, from whose shape the package derives the shape in values.
    return pack(name, values.float().contiguous().numpy(), kind).view(np.uint8)

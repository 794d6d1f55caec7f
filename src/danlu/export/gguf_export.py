"""Writes a base model with its adapter as one GGUF file, tensor by tensor, without a merged copy in between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quantize

from danlu import __version__
from danlu.errors import ExportError
from danlu.export.gguf_families import Family, read_family
from danlu.export.gguf_vocabulary import read_vocabulary, write_vocabulary
from danlu.export.weights import MergedWeights
from danlu.files import disk_errors, require_free, sha256_of
from danlu.models.new_tokens import EMBEDDING

if TYPE_CHECKING:
    import torch

Quant = Literal["q8_0", "q4_0", "f16", "bf16", "f32"]
QUANTS: Final[tuple[Quant, ...]] = get_args(Quant)
_TYPES: Final = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}
# Embedding and head suffer most from few bits; llama.cpp's own files keep them finer as well.
_FINER_IN_Q4: Final = ("token_embd.weight", "output.weight")
_ROPE_FACTORS: Final = "rope_freqs.weight"
_F16_LARGEST: Final = 65504.0
# Tensors in work at once: one is read while two are quantised.
_AHEAD: Final = 3


@dataclass(frozen=True)
class GgufResult:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        sha256: its hash in hex.
        kept_f16: matrices kept in 16 bits because their rows do not divide into blocks of 32.
    """

    path: Path
    bytes: int
    sha256: str
    kept_f16: int


def quant_of(name: str) -> Quant:
    """Return the storage type of a name.

    Raises:
        ExportError: there is none of this name.
    """
    for quant in QUANTS:
        if quant == name:
            return quant
    raise ExportError("export.quant_unknown", quant=name, known=", ".join(QUANTS))


@dataclass(frozen=True)
class _Planned:
    """One tensor of the file: where it comes from and how it is stored."""

    source: str
    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // int(block) * int(size)


def write_gguf(
    base: Path,
    adapter: Path | None,
    tokenizer: Path,
    path: Path,
    quant: Quant = "q8_0",
    name: str | None = None,
    report: Callable[[int, int], None] | None = None,
) -> GgufResult:
    """Write a GGUF file.

    Args:
        base: folder of the base model.
        adapter: folder of a peft adapter, or None.
        tokenizer: folder with the tokenizer and chat template as trained with.
        path: the file to write; its folder exists.
        quant: storage type of the matrices.
        name: the model's name in the file.
        report: called with (bytes written, bytes in all).

    Raises:
        ExportError: the family, the tokenizer or the adapter cannot be expressed in GGUF.
        MachineError: not enough room on the disk.
    """
    family = read_family(base)
    with MergedWeights(base, adapter) as weights:
        rows = weights.specs[EMBEDDING].shape[0]
        family = replace(family, shape=replace(family.shape, vocab_size=rows))
        vocabulary = read_vocabulary(tokenizer, rows)
        planned = list(_plan(family, weights, quant))
        total = sum(tensor.bytes for tensor in planned)
        require_free(path, total)
        writer = GGUFWriter(None, family.name)
        writer.add_type("model")
        writer.add_name(name or path.stem)
        writer.add_description(f"Danlu {__version__}")
        writer.add_file_type(_TYPES[quant][1])
        writer.add_quantization_version(2)
        family.write_metadata(writer)
        write_vocabulary(writer, vocabulary)
        factors = family.rope_factors()
        if factors is not None:
            writer.add_tensor_info(_ROPE_FACTORS, factors.shape, np.dtype(np.float32), factors.nbytes)
        for tensor in planned:
            # The package derives the shape of packed blocks from the shape in bytes.
            block, size = GGML_QUANT_SIZES[tensor.type]
            byte_shape = (*tensor.shape[:-1], tensor.shape[-1] // block * size)
            writer.add_tensor_info(tensor.name, byte_shape, np.dtype(np.uint8), tensor.bytes, tensor.type)
        with disk_errors(path):
            try:
                writer.write_header_to_file(path)
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
                if factors is not None:
                    writer.write_tensor_data(factors.numpy())
                done = 0
                for tensor, data in _produce(family, weights, planned):
                    writer.write_tensor_data(data)
                    done += tensor.bytes
                    if report is not None:
                        report(done, total)
                writer.flush()
            finally:
                writer.close()
    matrices_in_16 = sum(tensor.type is GGMLQuantizationType.F16 for tensor in planned)
    return GgufResult(path, path.stat().st_size, sha256_of(path), 0 if quant == "f16" else matrices_in_16)


def _plan(family: Family, weights: MergedWeights, quant: Quant) -> Iterator[_Planned]:
    """Decide name and storage type of every tensor."""
    tied = family.shape.tied and not weights.untied
    for spec in weights.specs.values():
        name = family.gguf_name(spec.name)
        # A checkpoint may hold the shared head a second time; llama.cpp takes the embedding when it is absent.
        if name is None or (tied and name == "output.weight"):
            continue
        yield _Planned(spec.name, name, spec.shape, _storage(name, spec.shape, quant))


def _storage(name: str, shape: tuple[int, ...], quant: Quant) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    wanted: GGMLQuantizationType = _TYPES[quant][0]
    if quant == "q4_0" and name in _FINER_IN_Q4:
        wanted = GGMLQuantizationType.Q8_0
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else GGMLQuantizationType.F16


def _produce(family: Family, weights: MergedWeights, planned: list[_Planned]) -> Iterator[tuple[_Planned, np.ndarray]]:
    """Yield the bytes of the tensors in order; numpy works outside of the interpreter's lock, so two go at once."""
    waiting: deque[tuple[_Planned, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(2, thread_name_prefix="quantise") as pool:
        for tensor in planned:
            values = family.convert(tensor.source, weights.tensor(tensor.source))
            waiting.append((tensor, pool.submit(_pack, tensor, values)))
            if len(waiting) >= _AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        while waiting:
            ready, future = waiting.popleft()
            yield ready, future.result()


def _pack(tensor: _Planned, values: torch.Tensor) -> np.ndarray:
    data = values.float().contiguous().numpy()
    if not np.isfinite(data).all():
        raise ExportError("export.not_finite", tensor.name, dtype="F32")
    if tensor.type is GGMLQuantizationType.F16 and float(np.abs(data).max()) > _F16_LARGEST:
        raise ExportError("export.not_finite", tensor.name, dtype="F16")
    packed: np.ndarray = quantize(data, tensor.type)
    return packed

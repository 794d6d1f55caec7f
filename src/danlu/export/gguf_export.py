"""Writes a base model with its adapter as one GGUF file, tensor by tensor, without a merged copy in between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from danlu import __version__
from danlu.export.gguf_families import Family, read_family
from danlu.export.gguf_storage import Quant, file_type, pack, storage_of
from danlu.export.gguf_vocabulary import read_vocabulary, write_vocabulary
from danlu.export.weights import MergedWeights
from danlu.files import disk_errors, require_free, sha256_of
from danlu.models.new_tokens import EMBEDDING

if TYPE_CHECKING:
    import torch

_ROPE_FACTORS: Final = "rope_freqs.weight"
# Pieces in work at once: one is read while two are quantised.
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
        writer.add_file_type(file_type(quant))
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
                with ThreadPoolExecutor(2, thread_name_prefix="quantise") as pool:
                    pieces = _ahead(_packing(pool, family, weights, planned))
                    for tensor in planned:
                        writer.write_tensor_data(cast("np.ndarray", _Streamed(tensor, pieces)))
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
    tied = family.shape.tied and not weights.untied and weights.has_shared_head()
    for spec in weights.specs.values():
        name = family.gguf_name(spec.name)
        # A checkpoint may hold the shared head a second time; llama.cpp takes the embedding when it is absent.
        if name is None or (tied and name == "output.weight"):
            continue
        kind = storage_of(name, spec.shape, quant, family.shape.layers, tied=tied)
        yield _Planned(spec.name, name, spec.shape, kind)


class _Streamed:
    """Stands for the array of a tensor that is written piece by piece; ``GGUFWriter`` asks an array no more than this.

    Args:
        tensor: what is written.
        pieces: packed pieces of this tensor and of those after it.
    """

    def __init__(self, tensor: _Planned, pieces: Iterator[np.ndarray]) -> None:
        self.nbytes = tensor.bytes
        self._tensor = tensor
        self._pieces = pieces

    def tofile(self, file: BinaryIO) -> None:
        """Write the tensor's pieces."""
        missing = self.nbytes
        while missing > 0:
            piece = next(self._pieces)
            missing -= piece.nbytes
            piece.tofile(file)
        assert missing == 0, f"{self._tensor.name}: {-missing} bytes too many"


def _packing(
    pool: ThreadPoolExecutor, family: Family, weights: MergedWeights, planned: list[_Planned]
) -> Iterator[Future[np.ndarray]]:
    """Yield each piece of each tensor, in order, as it is being packed.

    numpy and llama.cpp work outside of the interpreter's lock, so two go at once.
    """
    for tensor in planned:
        whole = not family.keeps_rows(tensor.source)
        values = [weights.tensor(tensor.source)] if whole else weights.pieces(tensor.source)
        for piece in values:
            yield pool.submit(_pack, tensor, family.convert(tensor.source, piece))


def _ahead(futures: Iterator[Future[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield results in order, while those after them are in work."""
    waiting: deque[Future[np.ndarray]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _pack(tensor: _Planned, values: torch.Tensor) -> np.ndarray:
    return pack(tensor.name, values.float().contiguous().numpy(), tensor.type)

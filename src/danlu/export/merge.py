"""Writes a base model with its adapter worked in as ordinary safetensors that plain transformers loads.

Piece by piece: memory is one group of rows in float32, whatever the size of the model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from danlu.errors import ExportError
from danlu.export.weights import MergedWeights, total_bytes
from danlu.files import require_free, write_json
from danlu.models.checks import INDEX_FILE, WEIGHTS_FILE
from danlu.models.load import TOKENIZER_FILES
from danlu.models.new_tokens import EMBEDDING
from danlu.models.safetensors_stream import DTYPE_BYTES, SafetensorsWriter, TensorSpec

if TYPE_CHECKING:
    import torch

MergedDtype = Literal["base", "float32", "bfloat16", "float16"]
SHARD_BYTES: Final = 5_000_000_000
_NAMES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class WrittenFile:
    """A file that an export wrote.

    Attributes:
        name: relative to the export's folder.
        bytes: its size.
        sha256: its hash in hex.
    """

    name: str
    bytes: int
    sha256: str


def write_merged(
    base: Path,
    adapter: Path | None,
    tokenizer: Path,
    folder: Path,
    dtype: MergedDtype = "base",
    report: Callable[[int, int], None] | None = None,
) -> tuple[WrittenFile, ...]:
    """Write merged weights with configuration and tokenizer into an empty folder.

    Args:
        base: folder of the base model.
        adapter: folder of a peft adapter; None copies the base.
        tokenizer: folder with the tokenizer and chat template as trained with.
        folder: an existing, empty folder.
        dtype: type of the weights; ``base`` keeps each tensor's own.
        report: called with (bytes written, bytes in all).

    Returns:
        The files of weights.

    Raises:
        ExportError: the adapter does not fit, or a weight is beyond what float16 can hold.
        MachineError: not enough room on the disk.
    """
    with MergedWeights(base, adapter) as weights:
        specs = [_with_dtype(spec, dtype) for spec in weights.specs.values()]
        total = total_bytes(specs)
        require_free(folder, total)
        written: list[WrittenFile] = []
        shards = _shards(specs)
        done = 0
        for index, shard in enumerate(shards, start=1):
            name = WEIGHTS_FILE if len(shards) == 1 else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
            with SafetensorsWriter(folder / name, shard) as writer:
                for spec in shard:
                    writer.write_pieces(spec.name, (tensor_bytes(piece, spec) for piece in weights.pieces(spec.name)))
                    done += spec.bytes
                    if report is not None:
                        report(done, total)
                written.append(WrittenFile(name, writer.bytes, writer.close()))
        if len(shards) > 1:
            weight_map = {spec.name: file.name for file, shard in zip(written, shards, strict=True) for spec in shard}
            write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
        rows = weights.specs[EMBEDDING].shape[0]
        _copy_settings(base, tokenizer, folder, None if dtype == "base" else dtype, rows, untied=weights.untied)
    return tuple(written)


def tensor_bytes(tensor: torch.Tensor, spec: TensorSpec) -> memoryview:
    """Return a tensor's bytes in the type of ``spec``, row-major.

    Raises:
        ExportError: a finite weight would become infinite.
    """
    import torch

    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    converted = tensor.to(types.get(spec.dtype, tensor.dtype)).contiguous()
    if spec.dtype in _FLOATS and not bool(torch.isfinite(converted).all()):
        raise ExportError("export.not_finite", spec.name, dtype=spec.dtype)
    return memoryview(converted.view(torch.uint8).numpy().reshape(-1).data)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a tokenizer, and the generation settings that lie with it."""
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _with_dtype(spec: TensorSpec, dtype: MergedDtype) -> TensorSpec:
    return spec if dtype == "base" or spec.dtype not in _FLOATS else replace(spec, dtype=_NAMES[dtype])


def _shards(specs: list[TensorSpec]) -> list[list[TensorSpec]]:
    """Divide tensors, in order, into files of at most ``SHARD_BYTES``."""
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        assert spec.dtype in DTYPE_BYTES
        if shards[-1] and size + spec.bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.bytes
    return shards


def _copy_settings(base: Path, tokenizer: Path, folder: Path, dtype: str | None, rows: int, *, untied: bool) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if rows > config.get("vocab_size", rows):
        config["vocab_size"] = rows
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    copy_tokenizer(tokenizer, folder)

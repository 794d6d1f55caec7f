"""Writes and inspects safetensors files tensor by tensor, so that a model never has to be in memory as a whole.

``safetensors.torch.save_file`` takes all tensors at once; a merged or converted model is larger than memory allows.
Layout: the safetensors format (8-byte length, JSON header, data); readers stay those of the library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from danlu.errors import ModelError
from danlu.files import disk_errors

# https://github.com/huggingface/safetensors: the header may not be longer than this.
_MAX_HEADER: Final = 100_000_000
DTYPE_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "U64": 8, "U32": 4, "U16": 2,
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """What will be written, or what a header promises.

    Attributes:
        name: the tensor's name.
        dtype: safetensors' name of the type, for example ``BF16``.
        shape: row-major.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class SafetensorsWriter:
    """Writes one file; tensors come in the order of ``specs``, the SHA-256 is computed on the way.

    Args:
        path: the file; it must not be in use.
        specs: all tensors of the file.
    """

    def __init__(self, path: Path, specs: Sequence[TensorSpec]) -> None:
        self.path = path
        self._rest = list(reversed(specs))
        self._digest = hashlib.sha256()
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for spec in specs:
            header[spec.name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [offset, offset + spec.bytes],
            }
            offset += spec.bytes
        text = json.dumps(header, separators=(",", ":")).encode("utf-8")
        text += b" " * (-len(text) % 8)
        self.bytes = 8 + len(text) + offset
        self._file = path.open("wb")
        self._put(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, data: memoryview | bytes) -> None:
        """Write the next tensor.

        Args:
            name: must be the next name of ``specs``.
            data: its bytes, row-major, little-endian.

        Raises:
            MachineError: the disk is full.
        """
        self.write_pieces(name, (data,))

    def write_pieces(self, name: str, pieces: Iterable[memoryview | bytes]) -> None:
        """Write the next tensor from pieces that need not exist at the same time; see ``write``."""
        spec = self._rest.pop()
        assert spec.name == name, f"{name} comes before {spec.name}"
        length = 0
        for data in pieces:
            length += data.nbytes if isinstance(data, memoryview) else len(data)
            self._put(data)
        assert length == spec.bytes, f"{name}: {length} bytes instead of {spec.bytes}"

    def close(self) -> str:
        """Finish the file and return its SHA-256 in hex."""
        assert not self._rest, f"{self._rest[-1].name} was not written"
        with disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._digest.hexdigest()

    def _put(self, data: memoryview | bytes) -> None:
        with disk_errors(self.path):
            self._file.write(data)
        self._digest.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Closing tries to write what the full disk refused; the first error is the one to tell.
        with contextlib.suppress(OSError) if kind is not None else disk_errors(self.path):
            self._file.close()


def read_header(path: Path) -> Mapping[str, TensorSpec]:
    """Read and check the header of a safetensors file without touching its data.

    Checked: length of the header, known types, shapes and offsets that fit each other, no gap, no overlap, and the
    data ending where the file ends. A file cut off in a download fails here.

    Raises:
        ModelError: anything of this does not hold.
    """
    try:
        return _read_header(path)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError("models.safetensors_damaged", str(path), reason=str(error)) from error


def _read_header(path: Path) -> dict[str, TensorSpec]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(_MAX_HEADER, size - 8):
            raise ValueError("header longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    spans: list[tuple[int, int]] = []
    specs: dict[str, TensorSpec] = {}
    for name, entry in header.items():
        spec = TensorSpec(name, entry["dtype"], tuple(entry["shape"]))
        begin, end = entry["data_offsets"]
        if spec.dtype not in DTYPE_BYTES:
            raise ValueError(f"{name}: unknown type {spec.dtype}")
        if any(not isinstance(dim, int) or dim < 0 for dim in spec.shape) or end - begin != spec.bytes:
            raise ValueError(f"{name}: size and shape disagree")
        spans.append((begin, end))
        specs[name] = spec
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError("gap or overlap between tensors")
        position = end
    if 8 + length + position != size:
        raise ValueError(f"{size - 8 - length} bytes of data instead of {position}")
    return specs

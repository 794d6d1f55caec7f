"""How the numbers of a GGUF file are stored: which type each tensor gets, and the packing into it.

K-quants have no implementation in the ``gguf`` package. They are packed by the library that later reads them, llama.cpp
as xllamacpp carries it (``ggml_quantize_chunk`` of its public header ``ggml.h``), so the bytes are llama.cpp's own.
Which tensor gets which type follows llama.cpp's mixtures of the same names. Not for the order of the file.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

from danlu.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable

Quant = Literal["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "f16", "bf16", "f32"]
QUANTS: Final[tuple[Quant, ...]] = get_args(Quant)
_TYPES: Final = {
    "q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q6_k": (Type.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "q5_k_m": (Type.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q4_k_m": (Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q4_0": (Type.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "f16": (Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, LlamaFileType.MOSTLY_BF16),
    "f32": (Type.F32, LlamaFileType.ALL_F32),
}
_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"
# Blocks of 256 need rows that divide by it; these types of like size have blocks of 32.
_SMALL_BLOCKS: Final = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
# Matrices in which errors cost most; the mixtures keep them finer in some layers.
_DELICATE: Final = ("attn_v.weight", "ffn_down.weight")
_LLAMA_CPP: Final = "xllamacpp"
_F16_LARGEST: Final = 65504.0


def quant_of(name: str) -> Quant:
    """Return the storage type of a name.

    Raises:
        ExportError: there is none of this name.
    """
    for quant in QUANTS:
        if quant == name:
            return quant
    raise ExportError("export.quant_unknown", quant=name, known=", ".join(QUANTS))


def file_type(quant: Quant) -> LlamaFileType:
    """Return llama.cpp's name for a file of this storage type."""
    return _TYPES[quant][1]


def storage_of(name: str, shape: tuple[int, ...], quant: Quant, layers: int, *, tied: bool) -> Type:
    """Return the type in which one tensor is stored.

    Args:
        name: its name in the file.
        shape: row-major.
        quant: of the file.
        layers: of the model.
        tied: whether the embedding serves as the head.
    """
    if len(shape) == 1:
        return Type.F32
    wanted = _wanted(name, quant, layers, tied=tied)
    if shape[-1] % GGML_QUANT_SIZES[wanted][0]:
        wanted = _SMALL_BLOCKS.get(wanted, wanted)
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else Type.F16


def _wanted(name: str, quant: Quant, layers: int, *, tied: bool) -> Type:
    general: Type = _TYPES[quant][0]
    if quant == "q4_0":
        # Embedding and head suffer most from few bits; llama.cpp's own files keep the head finer as well.
        return Type.Q8_0 if name in {_EMBEDDING, _HEAD} else general
    if general not in _SMALL_BLOCKS:
        return general
    if name == _HEAD or (tied and name == _EMBEDDING):
        return Type.Q6_K
    if name.endswith(_DELICATE) and _gets_more_bits(int(name.split(".")[1]), layers):
        return Type.Q6_K
    return general


def _gets_more_bits(layer: int, layers: int) -> bool:
    """Say whether a layer is among those that llama.cpp's "medium" mixtures keep finer: the ends, and each third."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def pack(name: str, values: np.ndarray, kind: Type) -> np.ndarray:
    """Return float32 values ``[…, columns]`` as the bytes of a type.

    Raises:
        ExportError: a value is not finite, or would not be in this type.
    """
    if not np.isfinite(values).all():
        raise ExportError("export.not_finite", name, dtype="F32")
    if kind is Type.F16 and values.size and float(np.abs(values).max()) > _F16_LARGEST:
        raise ExportError("export.not_finite", name, dtype="F16")
    if kind in _SMALL_BLOCKS:
        return _pack_as_llama_cpp(values, kind)
    packed: np.ndarray = quantize(values, kind)
    return packed


def _pack_as_llama_cpp(values: np.ndarray, kind: Type) -> np.ndarray:
    rows = np.ascontiguousarray(values.reshape(-1, values.shape[-1]), dtype=np.float32)
    block, size = GGML_QUANT_SIZES[kind]
    packed = np.empty((*values.shape[:-1], values.shape[-1] // block * size), np.uint8)
    # ctypes gives the interpreter's lock back during the call.
    written = _quantizer()(int(kind), rows.ctypes.data, packed.ctypes.data, 0, rows.shape[0], rows.shape[1], None)
    if written != packed.nbytes:
        raise ExportError("export.quant_library", quant=kind.name, reason=f"{written} != {packed.nbytes}")
    return packed


@cache
def _quantizer() -> Callable[..., int]:
    """Return llama.cpp's function; the file is opened as a library and not imported, which would start more."""
    spec = importlib.util.find_spec(_LLAMA_CPP)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
    files = [file for folder in folders for pattern in ("*.so", "*.pyd") for file in sorted(folder.glob(pattern))]
    for file in files:
        try:
            function = ctypes.CDLL(str(file)).ggml_quantize_chunk
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_size_t
        function.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]
        quantizer: Callable[..., int] = function
        return quantizer
    raise ExportError("export.quant_library", quant="K", reason=", ".join(map(str, files)) or _LLAMA_CPP)

"""Products with large frozen matrices in float32 on CPUs, by whichever of three routines is fastest for their sizes.

PyTorch hands ``x W^T`` to one routine, which suits many rows and matrices that are not wide. With the few rows of a
model that answers a token at a time it reads the matrix at a fraction of the memory's speed; the same product written
``(W x^T)^T`` does not. With many rows, and with wide matrices such as a vocabulary's, oneDNN, which PyTorch uses for
bfloat16 anyway, is the faster one. ``python -m bench kernels`` measures all three. No routine here records gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

Forward = Callable[..., torch.Tensor]
Override = tuple[nn.Module, Forward]

# 1.1 to 4 times as fast as PyTorch's own from 2 to 16 rows, with every size of matrix that was tried.
_TRANSPOSED_ROWS: Final = range(2, 17)
# From so many rows on oneDNN is 1.0 to 1.3 times as fast, with small matrices too.
_ONEDNN_ROWS: Final = 192
# With matrices of so many numbers it is 1.1 to 2 times as fast whatever the rows (one row: 1.5 to 2).
_ONEDNN_NUMBERS: Final = 1 << 21

# An operator without a public name: where a build of PyTorch lacks it, PyTorch's own routine takes its place.
_HAS_ONEDNN: Final = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
_CAN_PACK: Final = _HAS_ONEDNN and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
# The order that oneDNN prefers hangs on the rows that are expected; the product is the same with any number of them.
_PACKED_FOR_ROWS: Final = 256
# Products with a packed matrix are made of so many rows or a multiple of them.
PACKED_ROWS: Final = 16
# What is packed already, by matrix: a model is looked at by several parts of a run.
_PACKED: Final = WeakTensorKeyDictionary()


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x W^T + b``, to be called where no gradient is recorded.

    Args:
        x: of shape (..., in).
        weight: matrix of shape (out, in).
        bias: of shape (out,), or None.

    Returns:
        The product, of shape (..., out).
    """
    rows = x.numel() // x.shape[-1]
    if not x.dtype == weight.dtype == torch.float32 or not x.is_cpu:
        return functional.linear(x, weight, bias)
    if rows in _TRANSPOSED_ROWS:
        return transposed_product(x.reshape(rows, -1), weight, bias).view(*x.shape[:-1], -1)
    if _HAS_ONEDNN and (rows >= _ONEDNN_ROWS or weight.numel() >= _ONEDNN_NUMBERS):
        return onednn_product(x, weight, bias)
    return functional.linear(x, weight, bias)


def transposed_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x W^T + b`` as ``(W x^T)^T``; ``x`` has the shape (rows, in)."""
    result = torch.mm(weight, x.t()).t().contiguous()
    return result if bias is None else result.add_(bias)


def onednn_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x W^T + b`` by the operator that PyTorch's own compiler uses for linear layers on CPUs."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def packable(weight: torch.Tensor) -> bool:
    """Whether a matrix may be packed: frozen, wide, in float32 on a CPU, and whole in this process.

    Args:
        weight: of shape (out, in). Whether its parts are spread among processes shows only while nothing passes
            through the model.
    """
    return (
        _CAN_PACK
        and not weight.requires_grad
        and type(weight) in (torch.Tensor, nn.Parameter)  # FSDP2 keeps parts in a type of its own
        and not hasattr(weight, "ds_id")  # DeepSpeed takes the numbers away between uses
        and weight.dtype == torch.float32
        and weight.is_cpu
        and weight.numel() >= _ONEDNN_NUMBERS
    )


@dataclass(frozen=True)
class PackedMatrix:
    """A frozen matrix in the order in which oneDNN reads it, made once instead of at every product.

    oneDNN packs a matrix as large as a vocabulary's anew at each call, into memory of the same size, whose place the
    packed one takes. The results of ever other sizes do not fit the memory that was freed before, so that a process
    grows from step to step: here they have few sizes. With many rows it is also a little faster
    (python -m bench kernels).

    Attributes:
        packed: the numbers as oneDNN keeps them.
        version: how often the matrix had been changed when it was packed.
    """

    packed: torch.Tensor
    version: int

    @classmethod
    def of(cls, weight: torch.Tensor) -> PackedMatrix:
        """Pack a matrix, once however often it is asked for and as long as it lives unchanged.

        Args:
            weight: of shape (out, in), one that ``packable`` agrees to.
        """
        known: PackedMatrix | None = _PACKED.get(weight)  # type: ignore[no-untyped-call]
        if known is None or known.version != weight._version:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_FOR_ROWS)
            known = _PACKED[weight] = cls(packed, weight._version)
        return known

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return ``x W^T + b``, to be called where no gradient is recorded.

        Rows of zeros fill the last sixteen up, so that results have few sizes and the memory of one fits the next.

        Args:
            x: of shape (rows, in).
            bias: of shape (out,), or None.
        """
        rows = x.shape[0]
        filled = functional.pad(x, (0, 0, 0, -rows % PACKED_ROWS))
        return onednn_product(filled, self.packed, bias)[:rows]


@contextmanager
def in_place(overrides: Sequence[Override]) -> Iterator[None]:
    """Let modules compute with other forward functions; not to be nested."""
    for module, forward in overrides:
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, _ in overrides:
            del module.__dict__["forward"]


def linear_forward(module: nn.Linear) -> Forward:
    """Return a function that computes what a linear layer does, for use in ``in_place`` without gradients."""

    def forward(x: torch.Tensor, *_: Any) -> torch.Tensor:
        return product(x, module.weight, module.bias)

    return forward

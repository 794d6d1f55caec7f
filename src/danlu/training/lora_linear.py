"""A frozen matrix with its LoRA adapter as one operation, forward and backward.

peft computes ``x W^T + s (x A^T) B^T`` as separate steps, each of which writes and reads a matrix as large as the
result. Here the adapter's part is added in place by the product itself, and the backward pass is written by hand in
the same way; the frozen matrix gets no gradient. Only where that is exactly what peft would compute: one adapter, no
dropout, no variant such as DoRA, everything in one dtype. Not for merging.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from danlu.training.products import Forward, Override, in_place, linear_forward, product


@dataclass(frozen=True)
class PlainAdapter:
    """The parts of an adapted layer that computes ``x W^T + b + s (x A^T) B^T`` and nothing else.

    Attributes:
        layer: peft's layer.
        base: the frozen matrix ``W`` and its bias ``b``.
        down: ``A``.
        up: ``B``.
        scale: ``s``.
    """

    layer: LoraLinear
    base: nn.Linear
    down: nn.Linear
    up: nn.Linear
    scale: float

    def fits(self, x: torch.Tensor) -> bool:
        """Whether the layer computes that for this input at this moment."""
        return not (self.layer.disable_adapters or self.layer.merged or x.dtype != self.down.weight.dtype)


def plain_adapter(module: nn.Module) -> PlainAdapter | None:
    """Return the parts of a layer that is a frozen matrix with one plain adapter; None for any other."""
    if not isinstance(module, LoraLinear) or len(module.active_adapters) != 1:
        return None
    name, base = module.active_adapters[0], module.base_layer
    if (
        type(base) is not nn.Linear
        or base.weight.requires_grad
        or (base.bias is not None and base.bias.requires_grad)
        or name not in module.lora_A
        or not isinstance(module.lora_dropout[name], nn.Identity)
        or name in getattr(module, "lora_variant", {})
        or module.lora_B[name].bias is not None
        or not base.weight.dtype == module.lora_A[name].weight.dtype == module.lora_B[name].weight.dtype
    ):
        return None
    return PlainAdapter(module, base, module.lora_A[name], module.lora_B[name], float(module.scaling[name]))


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = torch.mm(rows, down.t())
        result = product(rows, weight, bias).addmm_(low, up.t(), alpha=scale)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scale = scale
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low, weight, down, up = ctx.saved_tensors
        grad = grad_outputs[0]
        flat = grad.reshape(-1, grad.shape[-1])
        grad_low = torch.mm(flat, up).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(flat, weight).addmm_(grad_low, down).view(*grad.shape[:-1], -1)
        return grad_x, None, None, torch.mm(grad_low.t(), rows), torch.mm(flat.t(), low).mul_(ctx.scale), None


def fused_forwards(model: nn.Module) -> list[Override]:
    """Return the adapted layers that can be computed in one operation, each with its forward function.

    Args:
        model: a model with an adapter.
    """
    adapters = map(plain_adapter, model.modules())
    return [(adapter.layer, _forward_of(adapter)) for adapter in adapters if adapter is not None]


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Let a model generate with the faster products, where no gradient is recorded; its adapter may be off meanwhile.

    Args:
        model: with or without an adapter.
    """
    plain = [(module, linear_forward(module)) for module in model.modules() if type(module) is nn.Linear]
    with in_place([*plain, *fused_forwards(model)]):
        yield


def _forward_of(adapter: PlainAdapter) -> Forward:
    own, base, down, up = adapter.layer.forward, adapter.base, adapter.down, adapter.up

    def forward(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if not adapter.fits(x):
            result: torch.Tensor = own(x, *arguments, **options)
            return result
        product: torch.Tensor = _LoraProduct.apply(x, base.weight, base.bias, down.weight, up.weight, adapter.scale)  # type: ignore[no-untyped-call]
        return product

    return forward

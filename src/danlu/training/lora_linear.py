"""A frozen matrix with its LoRA adapter as one operation, forward and backward.

peft computes ``x W^T + s (x A^T) B^T`` as separate steps, each of which writes and reads a matrix as large as the
result. Here the adapter's part is added in place by the product itself, and the backward pass is written by hand in
the same way; the frozen matrix gets no gradient. Only where that is exactly what peft would compute: one adapter, no
dropout, no variant such as DoRA, everything in one dtype. Not for generation or merging.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

Forward = Callable[..., torch.Tensor]


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
        result = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
        result.addmm_(low, up.t(), alpha=scale)
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


def fused_forwards(model: PeftModel) -> list[tuple[nn.Module, Forward]]:
    """Return the adapted layers that can be computed in one operation, each with its forward function.

    Args:
        model: a model with an adapter.
    """
    return [(module, _forward_of(module)) for module in model.modules() if _is_plain(module)]


def _forward_of(module: nn.Module) -> Forward:
    assert isinstance(module, LoraLinear)
    (name,) = module.active_adapters
    own, base = module.forward, module.base_layer
    down, up, scale = module.lora_A[name], module.lora_B[name], float(module.scaling[name])

    def forward(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if module.disable_adapters or module.merged or x.dtype != down.weight.dtype:
            result: torch.Tensor = own(x, *arguments, **options)
            return result
        product: torch.Tensor = _LoraProduct.apply(x, base.weight, base.bias, down.weight, up.weight, scale)  # type: ignore[no-untyped-call]
        return product

    return forward


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, LoraLinear) or len(module.active_adapters) != 1:
        return False
    name, base = module.active_adapters[0], module.base_layer
    return (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
        and name in module.lora_A
        and isinstance(module.lora_dropout[name], nn.Identity)
        and name not in getattr(module, "lora_variant", {})
        and module.lora_B[name].bias is None
        and base.weight.dtype == module.lora_A[name].weight.dtype == module.lora_B[name].weight.dtype
    )

"""Cross-entropy over the vocabulary for the tokens that are learned, and only for them.

The vocabulary is the widest matrix of a small model: all positions at once would be gigabytes of logits. Rows go
through the head in chunks, and each chunk's gradient is computed while its logits are still in the cache, so that
the backward pass only scales it (the idea of Liger's fused linear cross-entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

# Rows a chunk. 64 rows x 49,152 words of fp32 are 12.6 MB; larger chunks leave the cache, smaller ones starve the
# matrix product (design.md section 5: 64 rows was the fastest of 64..512 on two cores).
CHUNK_ROWS: Final = 64


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        need_grad = hidden.requires_grad
        grad = torch.empty_like(hidden) if need_grad else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, hidden.shape[0], CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logits = functional.linear(hidden[rows], weight, bias).float()
            wanted = targets[rows].unsqueeze(1)
            log_sum = torch.logsumexp(logits, dim=1, keepdim=True)
            total += (log_sum - logits.gather(1, wanted)).sum()
            if grad is not None:
                logits.sub_(log_sum).exp_()
                logits.scatter_add_(1, wanted, torch.full_like(log_sum, -1.0))
                torch.mm(logits.to(weight.dtype), weight, out=grad[rows])
        ctx.save_for_backward(*([grad] if grad is not None else []))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0].to(grad.dtype), None, None, None


def chunked_cross_entropy(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of ``targets`` under a frozen vocabulary head.

    Args:
        hidden: last hidden states of the positions that predict a learned token, shape [S, H].
        head: the frozen output layer, weight of shape [V, H].
        targets: ids of the learned tokens, int64, shape [S].

    Returns:
        The sum over the S positions in nats, float32, scalar. Its gradient reaches ``hidden`` only.
    """
    assert not head.weight.requires_grad, "the chunked loss gives no gradient to the head"
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-untyped-call]
    return loss


def plain_cross_entropy(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Return the same as ``chunked_cross_entropy`` in the plain way; also for a head that is trained."""
    return functional.cross_entropy(head(hidden).float(), targets, reduction="sum")

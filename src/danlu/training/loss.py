"""Cross-entropy over the vocabulary for the tokens that are learned, and only for them.

The vocabulary is the widest matrix of a small model: all positions at once would be gigabytes of logits. Rows go
through the head in chunks, and each chunk's gradient is computed from its logits at once, so that the backward pass
only scales it (the idea of Liger's fused linear cross-entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from math import ceil
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from danlu.training.products import PACKED_ROWS, PackedMatrix, product

# What a chunk's logits may take. The head is 1.2 times as fast with 512 rows a chunk as with 64 (49,152 words, two
# cores; python -m bench kernels), although the larger temporary falls out of the cache; beyond 512 nothing is gained.
_CHUNK_BYTES: Final = 100 << 20
_CHUNK_ROWS: Final = 512
# A packed head is as fast with few rows as with many.
_PACKED_CHUNK_ROWS: Final = 256
# With fewer rows another routine is up to twice as fast (python -m bench kernels).
_PACKED_FROM: Final = 17


def chunk_rows(rows: int, vocabulary: int) -> int:
    """Return how many rows go through the head at once, so that all chunks are about as large.

    Args:
        rows: rows in all.
        vocabulary: columns of the logits.
    """
    most = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (4 * vocabulary)))
    return ceil(rows / max(1, ceil(rows / most))) or 1


def packed_chunk_rows(vocabulary: int) -> int:
    """Return the same for a packed head: a multiple of the rows that its products are made of.

    Args:
        vocabulary: columns of the logits.
    """
    most = min(_PACKED_CHUNK_ROWS, _CHUNK_BYTES // (4 * vocabulary))
    return max(PACKED_ROWS, most // PACKED_ROWS * PACKED_ROWS)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        smoothing: float,
        packed: PackedMatrix | None,
    ) -> torch.Tensor:
        grad = torch.empty_like(hidden) if hidden.requires_grad else None
        # Of a frozen head these stay None.
        weight_grad = torch.zeros_like(weight) if weight.requires_grad else None
        bias_grad = torch.zeros_like(bias) if bias is not None and bias.requires_grad else None
        total = hidden.new_zeros((), dtype=torch.float32)
        size = packed_chunk_rows(weight.shape[0]) if packed else chunk_rows(hidden.shape[0], weight.shape[0])
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            logits = _logits(hidden[rows], weight, bias, packed)
            wanted = targets[rows].unsqueeze(1)
            highest = logits.amax(dim=1, keepdim=True)
            told = logits.gather(1, wanted)
            if smoothing:
                told = (1 - smoothing) * told + smoothing * logits.mean(dim=1, keepdim=True)
            told -= highest
            sums = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
            total += (sums.log() - told).sum()
            if grad is not None or weight_grad is not None:
                # sums * (softmax - target): the division is left to the rows of H, which are shorter than those of V.
                logits.scatter_add_(1, wanted, sums * (smoothing - 1))
                if smoothing:
                    logits.sub_(sums * (smoothing / logits.shape[1]))
                if grad is not None:
                    torch.mm(logits.to(weight.dtype), weight, out=grad[rows])
                    grad[rows] /= sums
                if weight_grad is not None:
                    weight_grad.addmm_(logits.t().to(weight.dtype), hidden[rows] / sums.to(hidden.dtype))
                if bias_grad is not None:
                    bias_grad += (logits / sums).sum(dim=0)
        ctx.save_for_backward(grad, weight_grad, bias_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [None if value is None else value * grad_outputs[0].to(value.dtype) for value in ctx.saved_tensors]
        return (*scaled, None, None, None)


def chunked_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Linear,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    packed: PackedMatrix | None = None,
) -> torch.Tensor:
    """Return the summed cross-entropy of ``targets`` under a vocabulary head.

    Args:
        hidden: last hidden states of the positions that predict a learned token, shape [S, H].
        head: the output layer, weight of shape [V, H], frozen or not.
        targets: ids of the learned tokens, int64, shape [S].
        smoothing: share of each target given to all V tokens alike.
        packed: the head's frozen matrix, packed.

    Returns:
        The sum over the S positions in nats, float32, scalar.
    """
    weight, bias = _weights_of(head)
    if not torch.is_grad_enabled():
        # What is only measured needs no gradient of a head that is trained.
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, smoothing, packed)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedTokenLosses(torch.autograd.Function):
    """Losses token by token: what counts how much is known only when all of them are (preference objectives)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        packed: PackedMatrix | None,
    ) -> torch.Tensor:
        losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        grad = torch.empty_like(hidden) if hidden.requires_grad else None
        size = packed_chunk_rows(weight.shape[0]) if packed else chunk_rows(hidden.shape[0], weight.shape[0])
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            chances = _log_chances(hidden[rows], weight, bias, packed)
            losses[rows] = chances.gather(1, targets[rows].unsqueeze(1)).squeeze(1).neg_()
            if grad is not None:
                torch.mm(_less_target(chances, targets[rows]).to(weight.dtype), weight, out=grad[rows])
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        ctx.save_for_backward(grad, *((hidden, weight, bias, targets) if trained else ()))
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        counts = grad_outputs[0].unsqueeze(1)
        grad, *head = ctx.saved_tensors
        scaled = None if grad is None else grad * counts.to(grad.dtype)
        if not head:
            return scaled, None, None, None, None
        hidden, weight, bias, targets = head
        weight_grad = torch.zeros_like(weight)
        bias_grad = None if bias is None else torch.zeros_like(bias)
        size = chunk_rows(hidden.shape[0], weight.shape[0])
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            wrong = _less_target(_log_chances(hidden[rows], weight, bias, None), targets[rows]) * counts[rows]
            weight_grad.addmm_(wrong.t().to(weight.dtype), hidden[rows])
            if bias_grad is not None:
                bias_grad += wrong.sum(dim=0)
        return scaled, weight_grad, bias_grad, None, None


def chunked_token_losses(
    hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor, packed: PackedMatrix | None = None
) -> torch.Tensor:
    """Return the cross-entropy of each of ``targets`` under a vocabulary head; their sum is ``chunked_cross_entropy``.

    A head that is trained computes its logits once more in the backward pass.

    Args:
        hidden: last hidden states of the positions that predict a learned token, shape [S, H].
        head: the output layer, weight of shape [V, H], frozen or not.
        targets: ids of the learned tokens, int64, shape [S].
        packed: the head's frozen matrix, packed.

    Returns:
        The losses in nats, float32, shape [S].
    """
    losses: torch.Tensor = _ChunkedTokenLosses.apply(hidden, *_weights_of(head), targets, packed)  # type: ignore[no-untyped-call]
    return losses


def _weights_of(head: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight [V, H] and bias [V] of a head; of one with rows that are trained apart (peft), put together.

    With its graph: only the gradient of those rows is kept in the end.
    """
    weight: torch.Tensor = head.weight  # type: ignore[assignment]
    return weight, head.bias if isinstance(head, nn.Linear) else None


def _logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, packed: PackedMatrix | None
) -> torch.Tensor:
    """Return the logits, float32, shape [S, V]; of few rows without the packed matrix."""
    if packed is None or hidden.shape[0] < _PACKED_FROM:
        return product(hidden, weight, bias).float()
    return packed.product(hidden, bias)


def _log_chances(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, packed: PackedMatrix | None
) -> torch.Tensor:
    """Return the logarithm of each token's chance, float32, shape [S, V]."""
    return torch.log_softmax(_logits(hidden, weight, bias, packed), dim=1)


def _less_target(log_chances: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Turn logarithms of chances, in place, into the gradient of the loss by the logits."""
    chances = log_chances.exp_()
    return chances.scatter_add_(1, targets.unsqueeze(1), chances.new_full((chances.shape[0], 1), -1.0))


def plain_cross_entropy(
    hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the same as ``chunked_cross_entropy`` in the plain way: what it is tested against."""
    return functional.cross_entropy(head(hidden).float(), targets, reduction="sum", label_smoothing=smoothing)

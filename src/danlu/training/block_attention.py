"""Causal attention in blocks of queries, made of plain matrix products, forward and backward.

PyTorch's own flash attention runs at about a third of a CPU's matrix speed for one document of a few hundred tokens
(its backward pass above all). Here a block of queries of all heads that share a key is one product against the keys
that it may see, so nothing beyond the diagonal block is computed in vain; probabilities are not kept but computed
again in the backward pass, so that the memory is that of flash attention. Same result, up to rounding.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any, Final

import torch

# Queries of a block: with 64 the scores of a block stay in a cache (two cores, 1 MiB each).
BLOCK: Final = 64


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        documents, heads, length, depth = query.shape
        batch = documents * key.shape[1]
        # Heads that share a key stand in one matrix: [N*Hkv, G, S, D].
        queries = (query * scale).reshape(batch, -1, length, depth)
        keys, values = key.reshape(batch, -1, depth), value.reshape(batch, -1, depth)
        output = torch.empty_like(queries)
        for start, stop in _blocks(length):
            seen = keys.shape[1] - length + stop
            weights = _weights(queries[:, :, start:stop], keys[:, :seen])
            output[:, :, start:stop] = torch.bmm(weights, values[:, :seen]).view(batch, -1, stop - start, depth)
        ctx.save_for_backward(queries, keys, values)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape)
        return output.view(documents, heads, length, depth)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        queries, keys, values = ctx.saved_tensors
        batch, _, length, depth = queries.shape
        grad = grad_outputs[0].reshape(queries.shape)
        grad_query = torch.empty_like(queries)
        grad_key, grad_value = torch.zeros_like(keys), torch.zeros_like(values)
        for start, stop in _blocks(length):
            seen = keys.shape[1] - length + stop
            block = queries[:, :, start:stop]
            rows = grad[:, :, start:stop].reshape(batch, -1, depth)
            weights = _weights(block, keys[:, :seen])
            grad_value[:, :seen].baddbmm_(weights.transpose(1, 2), rows)
            grad_weights = torch.bmm(rows, values[:, :seen].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[:, :, start:stop] = torch.bmm(grad_scores, keys[:, :seen]).view(block.shape)
            grad_key[:, :seen].baddbmm_(grad_scores.transpose(1, 2), block.reshape(batch, -1, depth))
        query_shape, key_shape = ctx.shapes
        return grad_query.mul_(ctx.scale).view(query_shape), grad_key.view(key_shape), grad_value.view(key_shape), None


def block_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Attend causally; the queries are the last S of the L positions of each document.

    Args:
        query: shape [N, H, S, D].
        key: shape [N, Hkv, L, D] with L >= S and H a multiple of Hkv.
        value: shape [N, Hkv, L, D].
        scale: factor of the scores.

    Returns:
        The attended values, shape [N, H, S, D].
    """
    attended: torch.Tensor = _BlockAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return attended


def _blocks(length: int) -> list[tuple[int, int]]:
    """Cut the queries into blocks of about the same size."""
    size = ceil(length / ceil(length / BLOCK))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _weights(block: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return what each query of a block [B, G, s, D] takes from each key [B, L, D], whose last s are its own.

    Shape [B, G*s, L].
    """
    batch, groups, length, depth = block.shape
    scores = torch.bmm(block.reshape(batch, groups * length, depth), keys.transpose(1, 2))
    scores.view(batch * groups, length, -1)[:, :, -length:].add_(_future(length, scores.dtype))
    return torch.softmax(scores, -1)


@lru_cache(maxsize=256)
def _future(length: int, dtype: torch.dtype) -> torch.Tensor:
    """Minus infinity where a key comes after the query, else zero; shape [length, length]."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1)

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
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        documents, heads, length, depth = query.shape
        batch = documents * key.shape[1]
        # Heads that share a key stand in one matrix: [N*Hkv, G, S, D].
        queries = (query * scale).reshape(batch, -1, length, depth)
        keys, values = key.reshape(batch, -1, depth), value.reshape(batch, -1, depth)
        output = torch.empty_like(queries)
        for start, stop in _blocks(length):
            seen = _seen(start, stop, keys.shape[1] - length, window)
            weights = _weights(queries[:, :, start:stop], keys[:, seen], window)
            output[:, :, start:stop] = torch.bmm(weights, values[:, seen]).view(batch, -1, stop - start, depth)
        ctx.save_for_backward(queries, keys, values)
        ctx.scale, ctx.window, ctx.shapes = scale, window, (query.shape, key.shape)
        return output.view(documents, heads, length, depth)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values = ctx.saved_tensors
        batch, _, length, depth = queries.shape
        grad = grad_outputs[0].reshape(queries.shape)
        grad_query = torch.empty_like(queries)
        grad_key, grad_value = torch.zeros_like(keys), torch.zeros_like(values)
        for start, stop in _blocks(length):
            seen = _seen(start, stop, keys.shape[1] - length, ctx.window)
            block = queries[:, :, start:stop]
            rows = grad[:, :, start:stop].reshape(batch, -1, depth)
            weights = _weights(block, keys[:, seen], ctx.window)
            grad_value[:, seen].baddbmm_(weights.transpose(1, 2), rows)
            grad_weights = torch.bmm(rows, values[:, seen].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[:, :, start:stop] = torch.bmm(grad_scores, keys[:, seen]).view(block.shape)
            grad_key[:, seen].baddbmm_(grad_scores.transpose(1, 2), block.reshape(batch, -1, depth))
        query_shape, key_shape = ctx.shapes
        grads = grad_query.mul_(ctx.scale).view(query_shape), grad_key.view(key_shape), grad_value.view(key_shape)
        return (*grads, None, None)


def block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None = None
) -> torch.Tensor:
    """Attend causally; the queries are the last S of the L positions of each document.

    Args:
        query: shape [N, H, S, D].
        key: shape [N, Hkv, L, D] with L >= S and H a multiple of Hkv.
        value: shape [N, Hkv, L, D].
        scale: factor of the scores.
        window: how many positions a query sees, its own included; None is all before it.

    Returns:
        The attended values, shape [N, H, S, D].
    """
    attended: torch.Tensor = _BlockAttention.apply(query, key, value, scale, window)  # type: ignore[no-untyped-call]
    return attended


def _blocks(length: int) -> list[tuple[int, int]]:
    """Cut the queries into blocks of about the same size."""
    size = ceil(length / ceil(length / BLOCK))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _seen(start: int, stop: int, before: int, window: int | None) -> slice:
    """Return the keys that some query of a block may see; ``before`` keys stand before the first query."""
    first = 0 if window is None else max(0, before + start - window + 1)
    return slice(first, before + stop)


def _weights(block: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
    """Return what each query of a block [B, G, s, D] takes from each key [B, L, D], whose last s are its own.

    Shape [B, G*s, L].
    """
    batch, groups, length, depth = block.shape
    scores = torch.bmm(block.reshape(batch, groups * length, depth), keys.transpose(1, 2))
    rows = scores.view(batch * groups, length, -1)
    rows[:, :, -length:].add_(_future(length, scores.dtype))
    if window is not None and rows.shape[2] > window:
        # The first keys are out of sight of the last queries.
        left = rows.shape[2] - window
        rows[:, :, :left].add_(_past(length, left, scores.dtype))
    return torch.softmax(scores, -1)


@lru_cache(maxsize=256)
def _future(length: int, dtype: torch.dtype) -> torch.Tensor:
    """Minus infinity where a key comes after the query, else zero; shape [length, length]."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1)


@lru_cache(maxsize=256)
def _past(length: int, left: int, dtype: torch.dtype) -> torch.Tensor:
    """Minus infinity where one of the first keys has left a query's window, else zero; shape [length, left].

    The last query sees none of them, each one before it one more.
    """
    return torch.full((length, left), -torch.inf, dtype=dtype).tril(left - length)

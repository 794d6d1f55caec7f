"""Attention over a packed sequence: each document sees the shared prefix and itself, never another document.

Plugs into transformers' attention interface under ``ATTENTION_NAME``, so every model class that uses the interface
can be trained packed. Not for generation: that goes through the model's usual attention.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional
from transformers import AttentionInterface

from danlu.data.layout import DocumentGroup, Layout
from danlu.training.block_attention import block_attention

ATTENTION_NAME: Final = "danlu_packed"

# From so many tokens on, on a CPU, blocks are faster than PyTorch's attention (python -m bench kernels: 0.9 times its
# speed at 128 tokens, 1.0 at 200, 1.1 at 256, 1.2 to 1.3 at 400 to 500, 1.1 at 800 and more).
_BLOCKS_FROM: Final = 256


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each document of a packed sequence (the signature is that of transformers' interface).

    Args:
        module: the attention module; its ``num_key_value_groups`` says how many queries share a key.
        query: shape [1, H, T, D].
        key: shape [1, Hkv, T, D].
        value: shape [1, Hkv, T, D].
        attention_mask: not used; the layout says who sees whom.
        scaling: factor of the scores; 1/sqrt(D) when None.
        dropout: must be 0, because a dropped weight would differ from the unpacked computation.
        layout: the layout of the T tokens.

    Returns:
        The attended values, shape [1, T, H, D], and None for the weights.
    """
    assert layout is not None, "packed attention needs the layout of its sequence"
    assert dropout == 0.0, "packed attention is exact only without dropout"
    pieces: list[torch.Tensor] = []
    shared_key, shared_value = key[:, :, : layout.prefix], value[:, :, : layout.prefix]
    if layout.prefix:
        own = _attend(query[:, :, : layout.prefix], shared_key, shared_value, scaling)
        pieces.append(own.squeeze(0).transpose(0, 1))
    for group in layout.groups:
        attended = _attend(
            _gather(query, group),
            _behind(shared_key, _gather(key, group)),
            _behind(shared_value, _gather(value, group)),
            scaling,
            group,
        )
        packed = attended.transpose(1, 2).flatten(0, 1)
        pieces.append(packed if group.alone else packed[group.real])
    output = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    if layout.back_in_order is not None:
        output = output[layout.back_in_order]
    return output.unsqueeze(0), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    group: DocumentGroup | None = None,
) -> torch.Tensor:
    """Attend causally, in whichever way is faster at this length; the queries are the last S of the L positions.

    Args:
        query: shape [N, H, S, D].
        key: shape [N, Hkv, L, D].
        value: shape [N, Hkv, L, D].
        scaling: factor of the scores; 1/sqrt(D) when None.
        group: the documents that attend; None for the prefix, which attends to nothing but itself.
    """
    if query.device.type == "cpu" and query.shape[2] >= _BLOCKS_FROM:
        return block_attention(query, key, value, query.shape[3] ** -0.5 if scaling is None else scaling)
    mask = group.mask if group is not None and group.prefix else None
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )


def _gather(states: torch.Tensor, group: DocumentGroup) -> torch.Tensor:
    """Turn packed states [1, H, T, D] into the group's documents [N, H, S, D]."""
    if group.alone:
        return states[:, :, group.alone]
    return states[0, :, group.index].transpose(0, 1)


def _behind(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Put the prefix's states [1, H, P, D] before those of each document [N, H, S, D]."""
    if not prefix.shape[2]:
        return own
    return torch.cat([prefix.expand(own.shape[0], -1, -1, -1), own], dim=2)


AttentionInterface.register(ATTENTION_NAME, packed_attention)

"""Attention over a packed sequence: each segment sees what it hangs from and itself, never another document.

Plugs into transformers' attention interface under ``ATTENTION_NAME``, so every model class that uses the interface
can be trained packed. Not for generation: that goes through the model's usual attention.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional
from transformers import AttentionInterface

from danlu.data.layout import Layout, SegmentGroup
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
    sliding_window: int | None = None,
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
        sliding_window: how many tokens a token of this layer sees, itself included; None is all before it.

    Returns:
        The attended values, shape [1, T, H, D], and None for the weights.
    """
    assert layout is not None, "packed attention needs the layout of its sequence"
    assert dropout == 0.0, "packed attention is exact only without dropout"
    own = [group.count * group.slots for group in layout.groups]
    queries = torch.split(_slots(query, layout.query_slots), own, dim=1)
    sizes = [size for group in layout.groups for size in (group.before, group.count * group.slots)]
    keys = torch.split(_slots(key, layout.key_slots), sizes, dim=1)
    values = torch.split(_slots(value, layout.key_slots), sizes, dim=1)
    pieces = [
        _attend(
            _one_by_one(queries[number], group),
            _behind(keys[2 * number], _one_by_one(keys[2 * number + 1], group)),
            _behind(values[2 * number], _one_by_one(values[2 * number + 1], group)),
            scaling,
            group,
            sliding_window,
        )
        .transpose(1, 2)
        .flatten(0, 1)
        for number, group in enumerate(layout.groups)
    ]
    output = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    if layout.back is not None:
        output = output.index_select(0, layout.back)
    return output.unsqueeze(0), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    group: SegmentGroup,
    window: int | None,
) -> torch.Tensor:
    """Attend causally, in whichever way is faster at this length; the queries are the last S of the L positions.

    Args:
        query: shape [N, H, S, D].
        key: shape [N, Hkv, L, D].
        value: shape [N, Hkv, L, D].
        scaling: factor of the scores; 1/sqrt(D) when None.
        group: the segments that attend.
        window: how many tokens a token sees, itself included; None is all before it.
    """
    if query.device.type == "cpu" and query.shape[2] >= _BLOCKS_FROM:
        return block_attention(query, key, value, query.shape[3] ** -0.5 if scaling is None else scaling, window)
    mask = group.mask(window)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )


def _slots(states: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """Take the states [1, H, T, D] of every slot, group after group: [H, slots, D]."""
    return states[0] if slots is None else states[0].index_select(1, slots)


def _one_by_one(states: torch.Tensor, group: SegmentGroup) -> torch.Tensor:
    """Turn a group's states [H, N*S, D] into those of its segments [N, H, S, D]."""
    return states.reshape(states.shape[0], group.count, group.slots, -1).transpose(0, 1)


def _behind(path: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Put the states [H, P, D] of what segments hang from before those of each [N, H, S, D]."""
    if not path.shape[1]:
        return own
    return torch.cat([path.unsqueeze(0).expand(own.shape[0], -1, -1, -1), own], dim=2)


AttentionInterface.register(ATTENTION_NAME, packed_attention)

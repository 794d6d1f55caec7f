"""Attention in blocks gives what PyTorch's attention gives, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from danlu.training.block_attention import BLOCK, block_attention


def make(documents: int, heads: int, shared: int, length: int, seen: int, dtype: torch.dtype = torch.float64):
    torch.manual_seed(length)
    shapes = [(documents, heads, length, 16), (documents, shared, seen, 16), (documents, shared, seen, 16)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def reference(query, key, value, scale, window=None):
    length, seen = query.shape[2], key.shape[2]
    mask = torch.ones(length, seen, dtype=torch.bool).tril(seen - length)
    if window is not None:
        mask &= torch.arange(seen) > torch.arange(seen - length, seen).unsqueeze(1) - window
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


@pytest.mark.parametrize(("heads", "shared"), [(9, 3), (4, 4), (6, 1)])
@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("prefix", [0, 1, 50])
@pytest.mark.parametrize("window", [None, 1, 20, BLOCK, BLOCK + 13, 10_000])
def test_blocks_give_the_same_output_and_the_same_gradients(heads, shared, length, prefix, window):
    inputs = make(2, heads, shared, length, prefix + length)
    wanted = reference(*inputs, 0.2, window)
    weights = torch.randn_like(wanted)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), inputs)
    found = block_attention(*inputs, 0.2, window)
    found_grads = torch.autograd.grad((found * weights).sum(), inputs)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(found_grads, wanted_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_backward_pass_is_the_derivative():
    inputs = make(1, 2, 1, BLOCK + 3, BLOCK + 5)
    assert torch.autograd.gradcheck(lambda *given: block_attention(*given, 0.3), inputs, fast_mode=True)


def test_a_later_token_changes_nothing_before_it():
    query, key, value = make(1, 4, 2, 150, 150)
    before = block_attention(query, key, value, 0.25)
    with torch.no_grad():
        key[:, :, 100] += 5
        value[:, :, 100] -= 5
    after = block_attention(query, key, value, 0.25)
    torch.testing.assert_close(after[:, :, :100], before[:, :, :100], rtol=0, atol=0)
    assert not torch.allclose(after[:, :, 100:], before[:, :, 100:])


def test_half_precision_is_as_near_to_the_truth_as_pytorchs_own():
    exact = make(1, 6, 2, 200, 200)
    truth = reference(*exact, 0.25)
    half = [tensor.detach().bfloat16() for tensor in exact]
    ours = (block_attention(*half, 0.25).double() - truth).abs().mean()
    theirs = (reference(*half, 0.25).double() - truth).abs().mean()
    assert ours < 1.5 * theirs

"""Losses token by token: the same as the plain computation, whatever each token counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from danlu.data.batches import pack
from danlu.training.forward import LossModel
from danlu.training.loss import chunked_cross_entropy, chunked_token_losses
from danlu.training.objectives import TokenMean
from tests.training.test_exactness import gradients, make_examples, with_random_adapter


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 700])
def test_each_tokens_loss_and_its_gradient_are_pytorchs(trained, bias, rows):
    torch.manual_seed(0)
    head = nn.Linear(8, 60, bias=bias).requires_grad_(trained)
    hidden = torch.randn(rows, 8, requires_grad=True)
    targets = torch.randint(0, 60, (rows,))
    counts = torch.randn(rows)

    found = chunked_token_losses(hidden, head, targets)
    (found * counts).sum().backward()
    gradient, head_gradients = hidden.grad.clone(), [p.grad.clone() for p in head.parameters() if trained]
    hidden.grad = None
    head.zero_grad(set_to_none=True)
    wanted = functional.cross_entropy(head(hidden), targets, reduction="none")
    (wanted * counts).sum().backward()

    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, hidden.grad)
    for mine, theirs in zip(head_gradients, [p.grad for p in head.parameters() if trained], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sum(), chunked_cross_entropy(hidden, head, targets))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("prefix", [0, 17])
def test_packed_losses_of_each_example_equal_the_plain_ones(family, prefix):
    model = with_random_adapter(family)
    losses = LossModel(model)
    examples = make_examples(5, prefix)
    counts = torch.tensor([1.0, -0.5, 2.0, 0.0, -3.0])

    def weighed(piece) -> torch.Tensor:
        tokens, owners = losses.token_losses(piece)
        sums = torch.zeros(len(examples)).index_add(0, owners, tokens)
        return (sums * counts).sum()

    plain = weighed(examples)
    wanted = gradients(model, [plain], 1)
    packed = weighed(pack(examples))
    found = gradients(model, [packed], 1)

    assert float(packed.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("budget", [40, 4096])
def test_the_pieces_of_a_step_add_up_to_the_mean_over_its_tokens(budget):
    losses = LossModel(with_random_adapter("llama"))
    examples = make_examples(6, 9)
    objective = TokenMean()
    pieces = objective.pieces(losses, examples, budget)
    total = sum(float(objective.loss(losses, piece, examples).detach()) for _, piece in pieces)
    supervised = sum(example.supervised for example in examples)
    assert total == pytest.approx(float(losses.plain_loss_sum(examples).detach()) / supervised, rel=1e-5)
    assert objective.heldout_loss(losses, examples, budget) == pytest.approx(total, rel=1e-5)

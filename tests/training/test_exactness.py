"""The contract of the fast path: the same loss and the same adapter gradients as the plain padded computation."""

from __future__ import annotations

import random

import pytest
import torch

from danlu.data.batches import epoch_order, micro_batches, pack, step_members
from danlu.data.documents import Document
from danlu.data.examples import Example
from danlu.data.texts import cut, fill
from danlu.models.document_format import DocumentFormat
from danlu.training.adapter import attach_lora
from danlu.training.forward import LossModel
from danlu.training.loss import chunk_rows, chunked_cross_entropy, packed_chunk_rows, plain_cross_entropy
from danlu.training.products import PACKED_ROWS, PackedMatrix
from danlu.training.settings import LoraSettings
from danlu.training.trained import trainable
from tests.tiny import tiny_model, tiny_tokenizer

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma3", "mistral-window", "qwen2-window"]


def make_examples(count: int, prefix: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    shared = [rng.randrange(3, 380) for _ in range(prefix)]
    examples = []
    for row in range(count):
        question = [rng.randrange(3, 380) for _ in range(rng.randint(2, 30))]
        answer = [rng.randrange(3, 380) for _ in range(rng.randint(1, 25))]
        ids = (*shared, *question, *answer)
        learn = (False,) * (prefix + len(question)) + (True,) * len(answer)
        examples.append(Example(ids, learn, row))
    return examples


def with_random_adapter(family: str, *, tied: bool = True):
    model = attach_lora(tiny_model(family, tied=tied), LoraSettings(r=4, lora_alpha=8), seed=1)
    torch.manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.1)  # a fresh adapter's B is zero, which would hide half of the gradients
    return model


def gradients(model, losses: list[torch.Tensor], total: int) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for loss in losses:
        (loss / total).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 17])
@pytest.mark.parametrize("budget", [40, 200, 4096])
def test_packed_loss_and_gradients_equal_the_plain_ones(family, tied, prefix, budget):
    model = with_random_adapter(family, tied=tied)
    losses = LossModel(model)
    assert losses.packed
    examples = make_examples(7, prefix)
    total = sum(example.supervised for example in examples)

    plain_loss = losses.plain_loss_sum(examples)
    plain = gradients(model, [plain_loss], total)
    pieces = [losses.loss_sum(piece) for piece in micro_batches(examples, budget)]
    packed = gradients(model, pieces, total)

    assert float(sum(pieces).detach()) == pytest.approx(float(plain_loss.detach()), rel=1e-5)
    for name, gradient in plain.items():
        scale = gradient.abs().max().clamp_min(1e-6)
        assert ((packed[name] - gradient).abs().max() / scale) < 1e-4, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [0, 30, 190])
def test_long_examples_too(family, prefix):
    model = with_random_adapter(family)
    losses = LossModel(model)
    rng = random.Random(5)
    shared = tuple(rng.randrange(3, 380) for _ in range(prefix))
    examples = [
        Example(
            (*shared, *(rng.randrange(3, 380) for _ in range(length))),
            (False,) * (prefix + 9) + (True,) * (length - 9),
            row,
        )
        for row, length in enumerate((200, 210, 330))
    ]
    total = sum(example.supervised for example in examples)
    reference = gradients(model, [losses.plain_loss_sum(examples)], total)
    found = gradients(model, [losses.loss_sum(pack(examples))], total)
    for name, gradient in reference.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("max_length", "budget"), [(16, 16), (64, 40), (64, 4096), (400, 128)])
def test_packed_texts_have_the_loss_and_gradients_of_one_text_at_a_time(family, max_length, budget):
    model = with_random_adapter(family)
    losses = LossModel(model)
    assert losses.packed
    rng = random.Random(2)
    texts = [Document("".join(rng.choices("tea house 竹里\n", k=rng.randint(1, 150))) + ".", 1, 1) for _ in range(6)]
    pieces = cut(texts, DocumentFormat.of(tiny_tokenizer()), max_length)
    examples = fill(pieces, max_length)
    assert any(example.lengths for example in examples)
    total = sum(piece.supervised for piece in pieces)
    assert sum(example.supervised for example in examples) == total

    alone = [losses.plain_loss_sum([piece]) for piece in pieces]
    wanted = gradients(model, alone, total)
    together = [losses.piece_loss(piece) for _, piece in losses.step_losses(examples, budget)]
    found = gradients(model, together, total)

    assert float(sum(together).detach()) == pytest.approx(float(sum(alone).detach()), rel=1e-5)
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp_min(1e-6)
        assert ((found[name] - gradient).abs().max() / scale) < 1e-4, name
    losses.packed = False
    plainly = [losses.piece_loss(piece) for _, piece in losses.step_losses(examples, budget)]
    assert float(sum(plainly).detach()) == pytest.approx(float(sum(alone).detach()), rel=1e-5)
    assert losses.mean_loss(examples, budget) == pytest.approx(float(sum(alone).detach()) / total, rel=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_sharing_the_prefix_changes_no_gradient(share):
    model = with_random_adapter("qwen2")
    losses = LossModel(model)
    examples = make_examples(5, 12)
    assert pack(examples).layout.back is not None, "segments that are not in the order of their lengths"
    total = sum(example.supervised for example in examples)
    reference = gradients(model, [losses.loss_sum(pack(examples, share_prefix=False))], total)
    found = gradients(model, [losses.loss_sum(pack(examples, share_prefix=share))], total)
    for name, gradient in reference.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_packed_example_does_not_see_its_neighbours():
    model = with_random_adapter("llama")
    losses = LossModel(model)
    first, second, other = make_examples(3, 0)
    together = float(losses.loss_sum(pack([first, second])).detach())
    swapped = float(losses.loss_sum(pack([first, other])).detach())
    alone = [float(losses.loss_sum(pack([example])).detach()) for example in (first, second, other)]
    assert together == pytest.approx(alone[0] + alone[1], rel=1e-5)
    assert swapped == pytest.approx(alone[0] + alone[2], rel=1e-5)


def tree_of_examples(seed: int = 0) -> list[Example]:
    """Examples under one system prompt: questions with several answers, and a conversation that goes on."""
    rng = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 380) for _ in range(count))

    system, examples = tokens(21), []
    for question in (tokens(19), tokens(40)):
        for length in (5, 6, 12):
            ids = (*system, *question, *tokens(length))
            examples.append(Example(ids, (False,) * (len(ids) - length) + (True,) * length, 1))
    ids, learn = (*system, *tokens(9)), (False,) * 30
    for length in (18, 20, 25):
        ids, learn = (*ids, *tokens(length), *tokens(4)), (*learn, *(True,) * length, *(False,) * 4)
        examples.append(Example(ids, learn, 2))
    return [*examples, examples[0], Example((*system, *tokens(3)), (False,) * 20 + (True,) * 4, 3)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [60, 150, 4096])
def test_a_tree_of_prefixes_has_the_loss_and_gradients_of_each_example_alone(family, budget):
    model = with_random_adapter(family)
    losses = LossModel(model)
    examples = tree_of_examples()
    total = sum(example.supervised for example in examples)

    plain_loss = losses.plain_loss_sum(examples)
    plain = gradients(model, [plain_loss], total)
    pieces = micro_batches(examples, budget)
    packed_losses = [losses.loss_sum(piece) for piece in pieces]
    packed = gradients(model, packed_losses, total)

    assert float(sum(packed_losses).detach()) == pytest.approx(float(plain_loss.detach()), rel=1e-5)
    for name, gradient in plain.items():
        scale = gradient.abs().max().clamp_min(1e-6)
        assert ((packed[name] - gradient).abs().max() / scale) < 1e-4, name


def test_what_examples_begin_with_stands_once_even_where_it_is_learned():
    shared = tuple(range(30, 50))
    first = Example((*shared, 5, 6), (False,) * 10 + (True,) * 12, 0)
    second = Example((*shared, 7), (False,) * 20 + (True,), 1)
    batch = pack([first, second])
    assert batch.input_ids.tolist() == [[*shared, 5, 6, 7]]
    assert batch.targets.tolist() == [*shared[10:], 5, 6, 7]
    assert batch.rows.tolist() == [*range(9, 19), 19, 20, 19]
    assert batch.owners.tolist() == [0] * 12 + [1]


def test_a_single_example_shares_nothing():
    assert len(pack(make_examples(1, 9)).layout.segments) == 1


@pytest.mark.parametrize(
    ("rows", "vocabulary", "size"),
    [
        (0, 500, 1),
        (1, 500, 1),
        (512, 500, 512),
        (513, 500, 257),
        (1600, 500, 400),
        (400, 152_000, 134),
        (9, 1 << 40, 1),
    ],
)
def test_chunks_are_about_as_large_and_never_too_large(rows, vocabulary, size):
    assert chunk_rows(rows, vocabulary) == size


@pytest.mark.parametrize(("vocabulary", "size"), [(500, 256), (49_152, 256), (152_000, 160), (1 << 40, 16)])
def test_chunks_of_a_packed_head_are_whole_products(vocabulary, size):
    assert packed_chunk_rows(vocabulary) == size


@pytest.mark.parametrize("rows", [0, 1, 512, 513, 1100])
def test_chunked_cross_entropy_equals_the_plain_one(rows):
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=rows % 2 == 0).requires_grad_(False)
    hidden = torch.randn(rows, 32, requires_grad=True)
    targets = torch.randint(0, 500, (rows,))
    plain = plain_cross_entropy(hidden, head, targets)
    (wanted,) = torch.autograd.grad(plain * 0.25, hidden)
    chunked = chunked_cross_entropy(hidden, head, targets)
    (found,) = torch.autograd.grad(chunked * 0.25, hidden)
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_a_packed_head_changes_no_loss_and_no_gradient(apart, monkeypatch):
    model = with_random_adapter("qwen2")
    examples = make_examples(7, 17)
    total = sum(example.supervised for example in examples)

    used: list[int] = []
    own = PackedMatrix.product

    def product(self: PackedMatrix, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        used.append(x.shape[0])
        return own(self, x, bias)

    monkeypatch.setattr(PackedMatrix, "product", product)

    def compute() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses = LossModel(model)
        pieces = micro_batches(examples, 200)
        sums = [losses.token_losses(piece)[0].sum() if apart else losses.loss_sum(piece) for piece in pieces]
        return torch.stack(sums).sum().detach(), gradients(model, sums, total)

    plain_loss, plain = compute()
    assert not used
    monkeypatch.setattr("danlu.training.products._ONEDNN_NUMBERS", 1)
    loss, found = compute()
    assert len(used) > 1
    assert any(rows % PACKED_ROWS for rows in used), "some rows are filled up"
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-5)
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_a_family_without_a_fast_path_takes_the_plain_one():
    model = with_random_adapter("gemma3")
    assert LossModel(model).packed
    model.get_base_model().config.final_logit_softcapping = 30.0
    assert not LossModel(model).packed


def test_the_self_check_gives_the_fast_path_up_when_it_differs(monkeypatch):
    model = with_random_adapter("llama")
    losses = LossModel(model)
    examples = make_examples(2, 4)
    assert losses.packed_agrees(examples)
    monkeypatch.setattr(losses, "plain_loss_sum", lambda _: torch.tensor(1.0))
    assert not losses.packed_agrees(examples)
    assert not losses.packed


def test_every_example_appears_once_an_epoch_and_steps_are_full():
    members = step_members(count=10, batch_size=4, seed=7, steps=5)
    assert all(len(step) == 4 for step in members)
    seen = [index for step in members for index in step]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:20]) == list(range(10))
    assert members == step_members(10, 4, 7, 5)
    assert epoch_order(10, 7, 0) != epoch_order(10, 7, 1)

"""Whichever routine multiplies, the product is that of PyTorch's own linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.nn import functional

from danlu.evaluation.generate import answer_all
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.training import products
from danlu.training.adapter import attach_lora
from danlu.training.lora_linear import answering
from danlu.training.products import PackedMatrix, onednn_product, packable, product, transposed_product
from danlu.training.trained import trainable
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.fitting import LORA

ROUTINES = [transposed_product, onednn_product]


def operands(rows: int, out: int, into: int, *, bias: bool, dtype: torch.dtype = torch.float32):
    torch.manual_seed(rows + out)
    return (
        torch.randn(rows, into, dtype=dtype),
        torch.randn(out, into, dtype=dtype),
        torch.randn(out, dtype=dtype) if bias else None,
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 9, 16, 17, 130, 300])
@pytest.mark.parametrize("routine", ROUTINES)
def test_each_routine_gives_the_product(routine, rows, bias):
    x, weight, added = operands(rows, 48, 33, bias=bias)
    result = routine(x, weight, added)
    assert result.shape == (rows, 48)
    assert result.is_contiguous()
    torch.testing.assert_close(result, functional.linear(x, weight, added), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "numbers", "chosen"),
    [
        (1, 1 << 10, None),
        (2, 1 << 10, "transposed_product"),
        (16, 1 << 21, "transposed_product"),
        (17, 1 << 10, None),
        (1, 1 << 21, "onednn_product"),
        (17, 1 << 21, "onednn_product"),
        (192, 1 << 10, "onednn_product"),
    ],
)
def test_the_sizes_decide_which_routine_it_is(rows, numbers, chosen, monkeypatch):
    used = []
    for routine in ROUTINES:
        name = routine.__name__
        monkeypatch.setattr(products, name, lambda *given, name=name, own=routine: used.append(name) or own(*given))
    x, weight, _ = operands(rows, numbers // 32, 32, bias=False)
    torch.testing.assert_close(product(x, weight, None), functional.linear(x, weight), rtol=1e-5, atol=1e-4)
    assert used == ([chosen] if chosen else [])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_left_to_pytorch(dtype):
    x, weight, bias = operands(5, 40, 24, bias=True, dtype=dtype)
    assert product(x, weight, bias).equal(functional.linear(x, weight, bias))


def test_a_build_without_onednns_operator_takes_pytorchs_own(monkeypatch):
    monkeypatch.setattr(products, "_HAS_ONEDNN", False)
    monkeypatch.setattr(products, "onednn_product", None)
    x, weight, bias = operands(300, 48, 33, bias=True)
    assert product(x, weight, bias).equal(functional.linear(x, weight, bias))


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_rows_that_do_not_lie_together_are_multiplied_too(rows):
    x, weight, bias = operands(3 * rows, 1 << 16, 33, bias=True)
    picked = x.view(rows, 3, 33)[:, -1:]
    torch.testing.assert_close(
        product(picked, weight, bias), functional.linear(picked, weight, bias), rtol=1e-5, atol=1e-4
    )


def test_further_dimensions_are_rows():
    x, weight, bias = operands(12, 20, 16, bias=True)
    result = product(x.view(3, 4, 16), weight, bias)
    torch.testing.assert_close(result, functional.linear(x.view(3, 4, 16), weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("off", [False, True])
def test_a_model_that_answers_with_them_has_the_same_logits(family, off):
    model = attach_lora(tiny_model(family), LORA, seed=1).eval()
    torch.manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.3)
    ids = torch.randint(0, 64, (3, 4))
    with torch.inference_mode():
        tuned = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
            if off:
                with answering(model):
                    assert_same(model(input_ids=ids).logits, base)
        assert not torch.allclose(tuned, base, rtol=1e-3, atol=1e-3)
        with answering(model):
            assert_same(model(input_ids=ids).logits, tuned)
            if off:
                with model.disable_adapter():
                    assert_same(model(input_ids=ids).logits, base)


def assert_same(ours: torch.Tensor, plain: torch.Tensor) -> None:
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_answers_are_made_with_them_and_nothing_of_them_stays(monkeypatch):
    rows = []
    own = products.transposed_product
    monkeypatch.setattr(products, "transposed_product", lambda x, *more: rows.append(len(x)) or own(x, *more))
    model = attach_lora(tiny_model("llama"), LORA, seed=1).eval()
    answers = answer_all(
        model, ChatFormat(tiny_tokenizer()), [(Message("user", text),) for text in ("你好", "Hello", "1 + 1")], 5
    )
    assert len(answers) == 3
    assert rows
    assert set(rows) <= set(range(2, 17))
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 9, 256, 300])
def test_a_packed_matrix_gives_the_product(rows, bias):
    x, weight, added = operands(rows, 1 << 13, 1 << 8, bias=bias)
    found = PackedMatrix.of(weight).product(x, added)
    torch.testing.assert_close(found, functional.linear(x, weight, added), rtol=1e-4, atol=1e-4)


def test_a_matrix_is_packed_once_until_it_changes():
    _, weight, _ = operands(1, 1 << 13, 1 << 8, bias=False)
    first = PackedMatrix.of(weight)
    assert PackedMatrix.of(weight) is first
    weight.mul_(2)
    x = torch.ones(3, 1 << 8)
    again = PackedMatrix.of(weight)
    assert again is not first
    torch.testing.assert_close(again.product(x, None), x @ weight.t(), rtol=1e-4, atol=1e-3)


def test_what_is_trained_or_small_or_in_another_format_is_not_packed():
    large = torch.zeros(1 << 13, 1 << 8)
    assert packable(large)
    assert packable(torch.nn.Parameter(large, requires_grad=False))
    assert not packable(torch.nn.Parameter(large))
    assert not packable(large.bfloat16())
    assert not packable(large[: 1 << 10])


def test_what_is_spread_among_processes_is_not_packed():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        large = distribute_tensor(torch.zeros(1 << 13, 1 << 8), init_device_mesh("cpu", (1,)))
        assert not packable(torch.nn.Parameter(large, requires_grad=False))
    finally:
        distributed.destroy_process_group()
    taken_away = torch.zeros(1 << 13, 1 << 8)
    taken_away.ds_id = 0  # as DeepSpeed marks what it has taken
    assert not packable(taken_away)

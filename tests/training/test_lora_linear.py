"""The fused adapter is peft's own, value by value and gradient by gradient; what it cannot do stays peft's."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from danlu.training.adapter import attach_lora
from danlu.training.forward import LossModel
from danlu.training.lora_linear import fused_forwards
from danlu.training.settings import LoraSettings
from danlu.training.trained import trainable
from tests.tiny import tiny_model
from tests.training.fitting import LORA, examples


def moved(family: str):
    """A model whose adapter is not zero."""
    model = attach_lora(tiny_model(family), LORA, seed=1)
    torch.manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.3)
    return model.train()


def computed(forward, module, x):
    """Output and all gradients of one call."""
    x = x.clone().requires_grad_()
    weights = [value for value in module.parameters() if value.requires_grad]
    result = forward(x)
    grads = torch.autograd.grad((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum(), [x, *weights])
    return [result, *grads]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_values_and_gradients_are_those_of_peft(family):
    model = moved(family)
    fused = fused_forwards(model)
    assert len(fused) == 14  # seven matrices in each of two layers
    torch.manual_seed(4)
    for module, forward in fused:
        x = torch.randn(1, 9, module.in_features)
        ours, pefts = computed(forward, module, x), computed(module.forward, module, x)
        assert len(ours) == len(pefts) == 4
        for one, other in zip(ours, pefts, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_the_derivative():
    model = moved("qwen2").double()
    module, forward = fused_forwards(model)[0]
    assert module.base_layer.bias is not None
    down, up = (part["default"].weight for part in (module.lora_A, module.lora_B))

    def product(x, _down, _up):
        return forward(x)

    x = torch.randn(1, 3, module.in_features, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(product, (x, down, up))


def test_an_adapter_that_is_switched_off_stays_off():
    model = moved("llama")
    module, forward = fused_forwards(model)[0]
    x = torch.randn(1, 5, module.in_features)
    with model.disable_adapter():
        assert torch.equal(forward(x), module.base_layer(x))
    assert not torch.allclose(forward(x), module.base_layer(x))


def test_the_model_is_left_as_it_was():
    model = moved("llama")
    losses = LossModel(model)
    attention = model.get_base_model().config._attn_implementation
    assert losses.mean_loss(examples(), 200) > 0
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert model.get_base_model().config._attn_implementation == attention


@pytest.mark.parametrize("changed", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_more_than_a_plain_adapter_stays_with_peft(changed):
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **changed)
    assert fused_forwards(get_peft_model(tiny_model(), config)) == []


def test_two_dtypes_stay_with_peft():
    model = attach_lora(tiny_model().to(torch.bfloat16), LoraSettings(r=4), seed=1)
    assert fused_forwards(model) == []

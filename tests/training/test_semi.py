"""Answers and texts in one run: the loss of a step, its members, and resuming, equal to the plain computation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from danlu.data.batches import mixed_members
from danlu.data.examples import Example, unpacked
from danlu.data.texts import fill
from danlu.events import Step
from danlu.training.forward import LossModel
from danlu.training.loop import Job, fit
from danlu.training.objectives import AnswersAndTexts, TokenMean, objective_of
from danlu.training.trained import attach
from tests.tiny import tiny_model
from tests.training.fitting import assert_bit_equal, settings, weights
from tests.training.test_exactness import FAMILIES, gradients, make_examples, with_random_adapter

WEIGHTS = (1.0, 0.25, 0.7, 1.0, 0.5)


def answers(count: int = 5) -> list[Example]:
    rows = make_examples(count, 9)
    return [replace(row, weight=WEIGHTS[number % len(WEIGHTS)]) for number, row in enumerate(rows)]


def texts() -> list[Example]:
    """Documents of which each token but the first is learned, several packed in one example."""
    pieces = [
        replace(piece, learn=(False,) + (True,) * (len(piece.input_ids) - 1)) for piece in make_examples(6, 0, seed=5)
    ]
    return [replace(example, text=True) for example in fill(pieces, 64)]


def plain_sums(model, examples: list[Example]) -> list[torch.Tensor]:
    """Return the summed loss of each example, one at a time, through the model as it comes."""
    sums = []
    for example in examples:
        ids = torch.tensor([example.input_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        each = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        sums.append(each[torch.tensor(example.learn[1:])].sum())
    return sums


def plain_loss(model, examples: list[Example], text_weight: float) -> torch.Tensor:
    single = unpacked(examples)
    sums = plain_sums(model, single)
    own = [(part, total) for part, total in zip(single, sums, strict=True) if not part.text]
    beside = [(part, total) for part, total in zip(single, sums, strict=True) if part.text]
    loss = sum(part.weight * total for part, total in own) / sum(part.weight * part.supervised for part, _ in own)
    if beside:
        loss = loss + text_weight * sum(total for _, total in beside) / sum(part.supervised for part, _ in beside)
    return loss


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [40, 4096])
@pytest.mark.parametrize("beside", [True, False])
def test_a_steps_loss_and_gradient_equal_the_plain_ones_however_it_is_cut(family, budget, beside, packed):
    model = with_random_adapter(family)
    losses = LossModel(model)
    losses.packed = losses.packed and packed
    examples = [*answers(), *(texts() if beside else [])]
    objective = AnswersAndTexts(0.5) if beside else TokenMean()
    plain = plain_loss(model, examples, 0.5)
    wanted = gradients(model, [plain], 1)
    pieces = [objective.loss(losses, piece, examples) for _, piece in objective.pieces(losses, examples, budget)]
    found = gradients(model, pieces, 1)

    assert sum(float(piece.detach()) for piece in pieces) == pytest.approx(float(plain.detach()), rel=1e-4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_a_weight_is_what_a_repeated_row_would_be():
    losses = LossModel(with_random_adapter("llama"))
    one, other = make_examples(2, 4)
    objective = TokenMean()

    def loss(examples: list[Example]) -> float:
        return sum(float(objective.loss(losses, piece, examples).detach()) for _, piece in
                   objective.pieces(losses, examples, 4096))  # fmt: skip

    assert loss([one, replace(other, weight=0.5)]) == pytest.approx(loss([one, one, other]), rel=1e-5)


def test_every_step_holds_both_kinds_in_the_same_proportion():
    examples = [*answers(7), *texts()]
    members = mixed_members(examples, 3, 2, seed=1, steps=9)
    assert all([examples[index].text for index in step] == [False] * 3 + [True] * 2 for step in members)
    seen = [index for step in members for index in step]
    assert set(seen) == set(range(len(examples))), "nothing is left out"
    assert members == mixed_members(examples, 3, 2, seed=1, steps=9)
    assert members != mixed_members(examples, 3, 2, seed=2, steps=9)


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_a_stopped_run_of_both_ends_with_the_same_bits(tmp_path, method):
    chosen = settings(method=method, texts_per_step=1, text_weight=0.5, steps=6, eval_every=3)

    def go(folder, *, stop_after=99, resume=False):
        steps = []
        model = attach(tiny_model("llama"), chosen)
        job = Job([*answers(8), *texts()], answers(2), folder, "tiny", objective=objective_of(chosen))
        result = fit(model, job, chosen, lambda e: steps.append(e) if isinstance(e, Step) else None,
                     lambda: len(steps) >= stop_after, resume=resume)  # fmt: skip
        return result, steps

    whole, steps = go(tmp_path / "whole")
    first, _ = go(tmp_path / "parts", stop_after=3)
    assert first.status == "stopped"
    second, rest = go(tmp_path / "parts", resume=True)
    assert_bit_equal(weights(tmp_path / "whole", method), weights(tmp_path / "parts", method))
    assert [step.loss for step in steps[3:]] == [step.loss for step in rest]
    assert second.train_loss == whole.train_loss
    assert steps[1].epoch == 1.0, "eight answers, four a step: texts are not counted"

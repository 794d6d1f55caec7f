"""Preference objectives: loss and gradients are those of two models in the plain way, however a step is cut."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch.nn.functional import logsigmoid

from danlu.data.examples import Example
from danlu.data.judged import join
from danlu.training.forward import LossModel
from danlu.training.preference_settings import PreferenceSettings
from danlu.training.preferences import PreferenceObjective, Reference, scores
from danlu.training.trained import trainable
from tests.tiny import tiny_model
from tests.training.test_exactness import FAMILIES, gradients, with_random_adapter

KINDS = {
    "dpo": {"objective": "dpo", "beta": 0.3},
    "cdpo": {"objective": "dpo", "label_smoothing": 0.2},
    "rpo": {"objective": "dpo", "rpo_alpha": 0.7},
    "ipo": {"objective": "dpo", "loss_type": "ipo", "beta": 0.4},
    "orpo": {"objective": "orpo", "beta": 0.5},
    "kto": {"objective": "kto", "beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.8},
}


def judged_examples(count: int = 6, prefix: int = 9, seed: int = 0) -> list[Example]:
    """Pairs of answers to prompts with a common beginning; every other one is unwanted where it is a label."""
    rng = random.Random(seed)
    shared = [rng.randrange(3, 380) for _ in range(prefix)]
    made = []
    for row in range(count):
        prompt = [*shared, *(rng.randrange(3, 380) for _ in range(rng.randint(2, 20)))]
        sides = []
        for _ in range(2):
            answer = [rng.randrange(3, 380) for _ in range(rng.randint(1, 25))]
            sides.append(Example((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer), row))
        pair = join(*sides)
        made.append(Example(pair.input_ids, pair.learn, row, pair.lengths, wanted=row % 2 == 0))
    return made


def plain_score(model, text: Example) -> torch.Tensor:
    """The sum of an answer's log-probabilities from full logits, one text at a time."""
    ids = torch.tensor([text.input_ids])
    chances = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
    each = chances.gather(1, ids[0, 1:, None])[:, 0]
    return each[torch.tensor(text.learn[1:])].sum()


def plain_loss(policy, reference, examples: list[Example], chosen: PreferenceSettings) -> torch.Tensor:
    """The formulas of the papers, written out example by example."""
    beta = chosen.beta
    now = [[plain_score(policy, part) for part in example.parts] for example in examples]
    with torch.no_grad():
        before = [[plain_score(reference, part) for part in example.parts] for example in examples]
    losses = []
    if chosen.objective == "kto":
        moved = torch.stack([n[1].detach() - b[1] for n, b in zip(now, before, strict=True)]).mean().clamp(min=0)
    for example, n, b in zip(examples, now, before, strict=True):
        lengths = [part.supervised for part in example.parts]
        if chosen.objective == "kto":
            gain = n[0] - b[0]
            if example.wanted:
                losses.append(chosen.desirable_weight * (1 - torch.sigmoid(beta * (gain - moved))))
            else:
                losses.append(chosen.undesirable_weight * (1 - torch.sigmoid(beta * (moved - gain))))
        elif chosen.objective == "orpo":
            odds = [torch.exp(n[i] / lengths[i]) / (1 - torch.exp(n[i] / lengths[i])) for i in range(2)]
            losses.append(-n[0] / lengths[0] - beta * logsigmoid(torch.log(odds[0] / odds[1])))
        elif chosen.loss_type == "ipo":
            gain = (n[0] - b[0]) / lengths[0] - (n[1] - b[1]) / lengths[1]
            losses.append((gain - 1 / (2 * beta)) ** 2)
        else:
            margin = beta * ((n[0] - b[0]) - (n[1] - b[1]))
            doubt = chosen.label_smoothing
            loss = -(1 - doubt) * logsigmoid(margin) - doubt * logsigmoid(-margin)
            losses.append(loss - (chosen.rpo_alpha or 0) * n[0] / lengths[0])
    return torch.stack(losses).mean()


def other_model(family: str):
    """A reference that differs from the policy in every weight."""
    return tiny_model(family, seed=5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_the_papers_with_two_models(family, kind):
    chosen = PreferenceSettings.model_validate(KINDS[kind])
    model, before = with_random_adapter(family), other_model(family)
    examples = judged_examples()
    wanted_loss = plain_loss(model, before, examples, chosen)
    wanted = gradients(model, [wanted_loss], 1)

    losses = LossModel(model)
    assert losses.packed
    objective = PreferenceObjective(chosen, Reference.measured(LossModel(before), examples, 200))
    for budget, packed in ((1, True), (90, True), (200, True), (4096, True), (300, False)):
        losses.packed = packed
        pieces = objective.pieces(losses, examples, budget)
        found = [objective.loss(losses, piece, examples) for _, piece in pieces]
        assert sum(len(piece.members) for _, piece in pieces) == len(examples)
        assert len(pieces) == {1: len(examples), 4096: 1}.get(budget, len(pieces))
        assert float(sum(found).detach()) == pytest.approx(float(wanted_loss.detach()), rel=1e-5)
        for name, gradient in gradients(model, found, 1).items():
            scale = wanted[name].abs().max().clamp_min(1e-6)
            assert ((gradient - wanted[name]).abs().max() / scale) < 1e-4, (budget, name)
        assert objective.heldout_loss(losses, examples, budget) == pytest.approx(float(wanted_loss.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["dpo", "kto", "orpo"])
def test_the_models_own_weights_too(kind):
    chosen = PreferenceSettings.model_validate(KINDS[kind])
    model = tiny_model("qwen2", tied=False).requires_grad_(True)
    before = copy.deepcopy(model)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    examples = judged_examples(4)
    wanted = gradients(model, [plain_loss(model, before, examples, chosen)], 1)
    losses = LossModel(model)
    objective = PreferenceObjective(chosen, Reference.measured(LossModel(before), examples, 100))
    found = [objective.loss(losses, piece, examples) for _, piece in objective.pieces(losses, examples, 150)]
    for name, gradient in gradients(model, found, 1).items():
        scale = wanted[name].abs().max().clamp_min(1e-6)
        assert ((gradient - wanted[name]).abs().max() / scale) < 2e-4, name
    assert set(trainable(model)) == set(wanted)


def test_a_reference_is_the_same_once_written(tmp_path):
    examples = judged_examples()
    reference = Reference.measured(LossModel(other_model("llama")), examples, 100)
    reference.write(tmp_path / "reference.safetensors", examples)
    again = Reference.read(tmp_path / "reference.safetensors", examples)
    assert torch.equal(again.of(examples), reference.of(examples))


def test_scores_are_in_the_order_of_the_examples_and_leave_the_model_as_it_was():
    model = other_model("llama").train()
    examples = judged_examples(7)
    found = scores(LossModel(model), examples, 60)
    assert model.training
    model.eval()
    for row, example in zip(found, examples, strict=True):
        assert row.tolist() == pytest.approx([float(plain_score(model, part)) for part in example.parts], rel=1e-5)


def test_figures_say_who_wins_and_by_how_much():
    chosen = PreferenceSettings(objective="dpo", beta=0.5)
    model, examples = with_random_adapter("llama"), judged_examples(4)
    objective = PreferenceObjective(chosen, Reference.measured(LossModel(other_model("llama")), examples, 100))
    losses = LossModel(model)
    for _, piece in objective.pieces(losses, examples, 80):
        objective.loss(losses, piece, examples)
    gains = scores(losses, examples, 80) - objective.reference.of(examples)
    said = objective.figures()
    assert said.preferred == pytest.approx(float((gains[:, 0] > gains[:, 1]).float().mean()))
    assert said.margin == pytest.approx(0.5 * float((gains[:, 0] - gains[:, 1]).mean()), rel=1e-4)


def test_before_the_first_step_dpo_is_the_logarithm_of_two():
    model, examples = other_model("llama"), judged_examples()
    losses = LossModel(model)
    objective = PreferenceObjective(PreferenceSettings(objective="dpo"), Reference.measured(losses, examples, 4096))
    assert objective.heldout_loss(losses, examples, 4096) == pytest.approx(0.693147, abs=1e-5)


def test_a_label_whose_prompt_is_the_only_one_is_compared_with_nothing():
    first, *_ = judged_examples(1)
    alone = Example(first.parts[0].input_ids, first.parts[0].learn, 1, (len(first.parts[0].input_ids),))
    model = with_random_adapter("llama")
    objective = PreferenceObjective(PreferenceSettings(objective="kto"), Reference.unmeasured([alone]))
    losses = LossModel(model)
    score = float(plain_score(model, alone.parts[0]).detach())
    assert objective.heldout_loss(losses, [alone], 100) == pytest.approx(1 - torch.sigmoid(torch.tensor(0.1 * score)))

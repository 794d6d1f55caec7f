"""The proof: greedy answers equal the naive way, a fresh adapter changes nothing, both sides are really measured."""

from __future__ import annotations

import pytest
import torch

from danlu.evaluation.general import general_examples, measure_general
from danlu.evaluation.generate import answer_all
from danlu.evaluation.probes import Probe
from danlu.evaluation.proof import prove
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.training.adapter import attach_lora
from danlu.training.forward import LossModel
from danlu.training.trained import adapter_off, trainable
from tests.models import templates
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.fitting import LORA, examples

QUESTIONS = [[Message("user", "tea " * count + "?")] for count in (9, 1, 4, 1, 30, 2)]


@pytest.fixture(scope="module")
def chat_format():
    return ChatFormat(tiny_tokenizer())


def tuned(strength: float):
    model = attach_lora(tiny_model(), LORA, seed=1)
    torch.manual_seed(5)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:
            parameter.data.normal_(0, strength) if strength else parameter.data.zero_()
    return model.eval()


def measured(model, general):
    return measure_general(LossModel(model), lambda: adapter_off(model), general, 100)


def naive_greedy(model, ids: list[int], stops: frozenset[int], most: int) -> list[int]:
    answer: list[int] = []
    with torch.no_grad():
        while len(answer) < most:
            token = int(model(torch.tensor([ids + answer])).logits[0, -1].argmax())
            if token in stops:
                break
            answer.append(token)
    return answer


def test_answers_given_together_equal_answers_given_one_by_one_without_a_cache(chat_format):
    model = tiny_model()
    together = answer_all(model, chat_format, QUESTIONS, max_new_tokens=12)
    for question, answer in zip(QUESTIONS, together, strict=True):
        ids = naive_greedy(model, chat_format.prompt_ids(question), chat_format.stop_ids, 12)
        text = chat_format.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer == (text.rstrip("\ufffd") if len(ids) == 12 else text).strip()
    assert together[1] == together[3]
    assert any(together)


def test_an_answer_ends_at_the_stop_token(chat_format):
    ids = naive_greedy(tiny_model(), chat_format.prompt_ids(QUESTIONS[0]), chat_format.stop_ids, 12)
    early = ChatFormat(chat_format.tokenizer, extra_stop_ids=frozenset({ids[3]}))
    expected = ids[: ids.index(ids[3])]
    assert answer_all(tiny_model(), early, QUESTIONS[:1], max_new_tokens=12)[0] == (
        chat_format.tokenizer.decode(expected, skip_special_tokens=True).strip()
    )
    assert len(expected) < len(ids)


def test_reasoning_that_never_ends_is_no_answer(chat_format):
    opening = ChatFormat(tiny_tokenizer(templates.CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}"))
    assert opening.opens_thinking(QUESTIONS[0])
    assert answer_all(tiny_model(), opening, QUESTIONS[:2], max_new_tokens=6) == ["", ""]


def test_a_fresh_adapter_has_moved_nothing(chat_format):
    result = measured(tuned(0.0), general_examples(chat_format, limit=4))
    assert result.n == 4
    assert result.kl == 0.0
    assert result.loss_before == result.loss_after > 0


def test_a_trained_adapter_has_moved_and_the_losses_are_the_plain_ones(chat_format):
    model, general = tuned(0.3), general_examples(chat_format, limit=4)
    result = measured(model, general)
    assert result.kl > 0.001
    losses = LossModel(model)
    assert result.loss_after == pytest.approx(losses.mean_loss(general, 4096), rel=1e-5)
    with model.disable_adapter():
        assert result.loss_before == pytest.approx(losses.mean_loss(general, 4096), rel=1e-5)


def test_the_general_set_ignores_the_persona(chat_format):
    persona = chat_format.with_system("You are Mochi.")
    assert general_examples(persona, limit=3) == general_examples(chat_format, limit=3)


def test_the_proof_compares_the_model_with_itself_without_its_adapter(chat_format):
    model, heldout = tuned(0.3), examples(4, seed=9)
    probes = [Probe(question=messages[0].content) for messages in QUESTIONS]
    general = general_examples(chat_format, limit=2)
    said: list[str] = []
    proof = prove(
        model, lambda: adapter_off(model), chat_format, probes, heldout, general, 200, unseen=True, progress=said.append
    )
    losses = LossModel(model)
    assert proof.heldout.n == 4
    assert proof.heldout.loss_after == pytest.approx(losses.mean_loss(heldout, 200))
    with model.disable_adapter():
        assert proof.heldout.loss_before == pytest.approx(losses.mean_loss(heldout, 200))
    assert proof.heldout.loss_before != proof.heldout.loss_after
    assert [item.before for item in proof.probes.items] == answer_all(tiny_model(), chat_format, QUESTIONS)
    assert [item.question for item in proof.probes.items] == [probe.question for probe in probes]
    assert any(item.before != item.after for item in proof.probes.items)
    assert proof.probes.pass_before == sum(item.passed_before for item in proof.probes.items)
    assert proof.probes.pass_after == sum(item.passed_after for item in proof.probes.items)
    assert said == ["evaluation.doing_heldout", "evaluation.doing_probes", "evaluation.doing_general"]


def test_losses_that_the_run_measured_are_taken_and_none_without_held_out_rows(chat_format):
    model, general = tuned(0.0), general_examples(chat_format, limit=1)
    probes = [Probe(question="?")]
    known = prove(
        model,
        lambda: adapter_off(model),
        chat_format,
        probes,
        examples(2),
        general,
        200,
        unseen=False,
        known_losses=(3.0, 1.0),
    )
    assert (known.heldout.loss_before, known.heldout.loss_after) == (3.0, 1.0)
    none = prove(model, lambda: adapter_off(model), chat_format, probes, [], general, 200, unseen=False)
    assert (none.heldout.n, none.heldout.loss_before, none.heldout.loss_after) == (0, None, None)


def test_an_answer_cut_inside_a_character_does_not_end_in_half_of_it(chat_format, monkeypatch):
    half = chat_format.tokenizer("丹", add_special_tokens=False)["input_ids"][:-1]
    assert chat_format.tokenizer.decode(half).endswith("\ufffd")
    ids = [*chat_format.tokenizer("tea ", add_special_tokens=False)["input_ids"], *half]
    monkeypatch.setattr("danlu.evaluation.generate._generate", lambda *_: [ids])
    assert answer_all(tiny_model(), chat_format, QUESTIONS[:1], max_new_tokens=len(ids)) == ["tea"]
    marked = answer_all(tiny_model(), chat_format, QUESTIONS[:1], max_new_tokens=len(ids), cut_mark="…")
    assert marked == ["tea …"]
    assert answer_all(tiny_model(), chat_format, QUESTIONS[:1], max_new_tokens=99)[0].endswith("\ufffd")


@pytest.mark.parametrize(("said", "limit"), [("tea", 32), ("x" * 20, 40), ("x" * 60, 64)])
def test_the_untuned_model_may_answer_twice_as_long_as_the_tuned_one_did(chat_format, monkeypatch, said, limit):
    limits: list[int | None] = []

    def answers(_model, _format, questions, most=None):
        limits.append(most)
        return [said] * len(questions)

    # Each x is a token of its own.
    assert len(chat_format.tokenizer.encode("x" * 20, add_special_tokens=False)) == 20
    monkeypatch.setattr("danlu.evaluation.proof.answer_all", answers)
    general = general_examples(chat_format, limit=1)
    model = tuned(0.0)
    prove(model, lambda: adapter_off(model), chat_format, [Probe(question="?")], [], general, 200, unseen=False)
    assert limits == [None, limit]

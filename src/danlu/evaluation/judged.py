"""The proof of judged answers: on whose side the model is, before and after, and what it says to some questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch

from danlu.data.examples import Example
from danlu.evaluation.general import Before
from danlu.evaluation.generate import answer_all
from danlu.evaluation.result import Continuation, PreferenceProof
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.training.forward import LossModel
from danlu.training.preference_settings import PreferenceSettings
from danlu.training.preferences import PreferenceObjective, Reference, scores
from danlu.training.trained import TrainedModel

_ANSWER_TOKENS: Final = 128


@dataclass(frozen=True)
class JudgedProof:
    """What the proof of judged answers needs.

    Attributes:
        settings: how they were learned.
        questions: prompts that both models answer.
        learned: whether what is measured on are examples that were learned, because none were kept aside.
    """

    settings: PreferenceSettings
    questions: Sequence[tuple[Message, ...]]
    learned: bool


def measure_judged(
    model: TrainedModel, before: Before, judged: JudgedProof, examples: Sequence[Example], token_budget: int
) -> tuple[tuple[float, float], PreferenceProof | None]:
    """Measure judged answers under both models; the one before is the reference of both losses.

    Returns:
        The loss before and after, and the comparison; None where there are not both good and bad answers.
    """
    losses = LossModel(model)
    with before() as base:
        reference = Reference.measured(LossModel(base), examples, token_budget)
        objective = PreferenceObjective(judged.settings, reference)
        loss_before = objective.heldout_loss(LossModel(base), examples, token_budget)
    loss_after = objective.heldout_loss(losses, examples, token_budget)
    now, then = scores(losses, examples, token_budget), reference.of(examples)
    return (loss_before, loss_after), _compare(examples, then, now, paired=judged.settings.paired)


def questions_answered(
    model: TrainedModel, before: Before, chat_format: ChatFormat, questions: Sequence[tuple[Message, ...]]
) -> tuple[Continuation, ...]:
    """Return what both models say to some questions, greedily; long answers are cut."""
    model.eval()
    after = answer_all(model, chat_format, questions, _ANSWER_TOKENS, cut_mark=" …")
    with before() as base:
        base.eval()
        earlier = answer_all(base, chat_format, questions, _ANSWER_TOKENS, cut_mark=" …")
    return tuple(
        Continuation(opening=question[-1].content, before=old, after=new)
        for question, old, new in zip(questions, earlier, after, strict=True)
    )


def _compare(
    examples: Sequence[Example], then: torch.Tensor, now: torch.Tensor, *, paired: bool
) -> PreferenceProof | None:
    """Compare good with bad answers by the mean log-probability of a token, so that length does not decide."""
    rows = range(len(examples))
    if paired:
        places = [((row, 0), (row, 1)) for row in rows]
    else:
        good = [(row, 0) for row in rows if examples[row].wanted]
        places = list(product(good, ((row, 0) for row in rows if not examples[row].wanted)))
    if not places:
        return None
    lengths = torch.tensor([[example.parts[i].supervised for i in range(2 if paired else 1)] for example in examples])
    means_then, means_now = then[:, : lengths.shape[1]] / lengths, now[:, : lengths.shape[1]] / lengths
    count = len(places)
    return PreferenceProof(
        n=count,
        preferred_before=sum(bool(means_then[one] > means_then[other]) for one, other in places) / count,
        preferred_after=sum(bool(means_now[one] > means_now[other]) for one, other in places) / count,
        moved=sum(bool((now - then)[one] > (now - then)[other]) for one, other in places) / count,
    )

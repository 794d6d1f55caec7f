"""The proof: the same questions and held-out examples before and after training, and what changed beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from danlu.data.examples import Example
from danlu.evaluation.general import Before, measure_general
from danlu.evaluation.generate import answer_all, continue_all, longest_answer
from danlu.evaluation.judged import JudgedProof, measure_judged, questions_answered
from danlu.evaluation.openings import Opening
from danlu.evaluation.probes import Probe
from danlu.evaluation.result import Continuation, GeneralProof, HeldoutProof, ProbeItem, ProbeProof, Proof
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.training.forward import LossModel
from danlu.training.trained import TrainedModel

_FEWEST_TOKENS: Final = 32
_CONTINUED_TOKENS: Final = 48


@dataclass(frozen=True)
class TextProof:
    """What the proof of learned texts needs.

    Attributes:
        document_format: how documents are written.
        openings: beginnings that both models go on with.
        learned: whether ``heldout`` are examples that were learned, because none were kept aside.
    """

    document_format: DocumentFormat
    openings: Sequence[Opening]
    learned: bool


def prove(
    model: TrainedModel,
    before: Before,
    chat_format: ChatFormat,
    probes: Sequence[Probe],
    heldout: Sequence[Example],
    general: Sequence[Example],
    token_budget: int,
    *,
    unseen: bool,
    texts: TextProof | None = None,
    judged: JudgedProof | None = None,
    known_losses: tuple[float, float] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Measure a tuned model against its own base.

    Args:
        model: the tuned model.
        before: gives the base model for a while: the same model with its adapter off, or another one.
        chat_format: how conversations are written.
        probes: questions to ask both.
        heldout: examples that were not learned; may be empty.
        general: examples of general knowledge.
        token_budget: most tokens at once.
        unseen: whether the probes are not in the training data.
        texts: what is looked at beside when plain texts were learned.
        judged: what is looked at beside when judged answers were learned.
        known_losses: held-out loss before and after, when the run has measured them already.
        progress: receives the catalogue key of what is being done.
    """
    losses = LossModel(model)
    questions = [probe.messages for probe in probes]
    loss_before, loss_after = known_losses or (None, None)
    preferences = None
    if heldout and judged is not None:
        progress("evaluation.doing_judged")
        losses_found, preferences = measure_judged(model, before, judged, heldout, token_budget)
        loss_before, loss_after = known_losses or losses_found
    elif heldout and known_losses is None:
        progress("evaluation.doing_heldout")
        loss_after = losses.mean_loss(heldout, token_budget)
        with before() as base:
            loss_before = LossModel(base).mean_loss(heldout, token_budget)
    model.eval()
    earlier, after = [], []
    if questions:
        progress("evaluation.doing_probes")
        after = answer_all(model, chat_format, questions)
        with before() as base:
            base.eval()
            earlier = answer_all(base, chat_format, questions, _tokens_before(chat_format, after))
    items = tuple(
        ProbeItem(
            question=probe.question,
            before=old,
            after=new,
            passed_before=probe.passes(old),
            passed_after=probe.passes(new),
        )
        for probe, old, new in zip(probes, earlier, after, strict=True)
    )
    continuations: tuple[Continuation, ...] = ()
    if texts is not None and texts.openings:
        progress("evaluation.doing_openings")
        continuations = _continuations(model, before, texts)
    answered: tuple[Continuation, ...] = ()
    if judged is not None and judged.questions:
        progress("evaluation.doing_questions")
        answered = questions_answered(model, before, chat_format, judged.questions)
    progress("evaluation.doing_general")
    measured = measure_general(losses, before, general, token_budget)
    return Proof(
        heldout=HeldoutProof(
            n=len(heldout),
            loss_before=loss_before,
            loss_after=loss_after,
            texts=texts is not None,
            learned=(texts is not None and texts.learned) or (judged is not None and judged.learned),
        ),
        probes=ProbeProof(
            n=len(items),
            pass_before=sum(item.passed_before for item in items),
            pass_after=sum(item.passed_after for item in items),
            items=items,
        ),
        general=GeneralProof(
            n=measured.n, loss_before=measured.loss_before, loss_after=measured.loss_after, kl=measured.kl
        ),
        unseen=unseen,
        continuations=continuations,
        preferences=preferences,
        answered=answered,
    )


def _continuations(model: TrainedModel, before: Before, texts: TextProof) -> tuple[Continuation, ...]:
    beginnings = [opening.ids for opening in texts.openings]
    after = continue_all(model, texts.document_format, beginnings, _CONTINUED_TOKENS, cut_mark=" …")
    with before() as base:
        base.eval()
        earlier = continue_all(base, texts.document_format, beginnings, _CONTINUED_TOKENS, cut_mark=" …")
    return tuple(
        Continuation(opening=opening.text, before=old, after=new)
        for opening, old, new in zip(texts.openings, earlier, after, strict=True)
    )


def _tokens_before(chat_format: ChatFormat, after: Sequence[str]) -> int:
    """Return how long the base model may answer: twice as long as the tuned one did at most.

    An untuned model goes on until it is stopped, and whoever waits for the proof waits for that. Reasoning does not
    count, so where there is some, both have the same room.
    """
    most = longest_answer(chat_format)
    if chat_format.reasons:
        return most
    longest = max((len(chat_format.tokenizer.encode(text, add_special_tokens=False)) for text in after), default=0)
    return min(most, max(_FEWEST_TOKENS, 2 * longest))

"""The proof: the same questions and held-out examples before and after training, and what changed beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peft import PeftModel
from pydantic import BaseModel, ConfigDict

from danlu.data.batches import Example
from danlu.evaluation.general import measure_general
from danlu.evaluation.generate import answer_all
from danlu.evaluation.probes import Probe
from danlu.i18n import Language, t
from danlu.models.chat_format import ChatFormat
from danlu.training.forward import LossModel

# A rise of the general loss by more than this is worth a warning (proposal in the research notes: +5 %).
FORGETTING_WARN = 0.05


class HeldoutProof(BaseModel):
    """Held-out examples before and after; no losses when nothing was kept aside."""

    model_config = ConfigDict(frozen=True)

    n: int
    loss_before: float | None
    loss_after: float | None


class ProbeItem(BaseModel):
    """One probe before and after."""

    model_config = ConfigDict(frozen=True)

    question: str
    before: str
    after: str
    passed_before: bool
    passed_after: bool


class ProbeProof(BaseModel):
    """All probes; the two counts say how many passed."""

    model_config = ConfigDict(frozen=True)

    n: int
    pass_before: int
    pass_after: int
    items: tuple[ProbeItem, ...]


class GeneralProof(BaseModel):
    """The general set (see ``general``)."""

    model_config = ConfigDict(frozen=True)

    n: int
    loss_before: float
    loss_after: float
    kl: float


class Proof(BaseModel):
    """What training changed.

    Attributes:
        unseen: whether the probes are questions that are not in the training data.
    """

    model_config = ConfigDict(frozen=True)

    heldout: HeldoutProof
    probes: ProbeProof
    general: GeneralProof
    unseen: bool

    def verdict(self, lang: Language | None = None) -> str:
        """Return the result in one sentence, the bad news included."""
        kind = "unseen" if self.unseen else "rows"
        parts = [
            t(
                f"evaluation.verdict_{kind}",
                lang,
                n=self.probes.n,
                before=self.probes.pass_before,
                after=self.probes.pass_after,
            )
        ]
        if self.heldout.loss_before is not None and self.heldout.loss_after is not None:
            parts.append(
                t("evaluation.verdict_heldout", lang, before=self.heldout.loss_before, after=self.heldout.loss_after)
            )
        rise = self.general.loss_after / self.general.loss_before - 1
        key = "evaluation.verdict_forgot" if rise > FORGETTING_WARN else "evaluation.verdict_kept"
        parts.append(t(key, lang, rise=rise))
        return " ".join(parts)


def prove(
    model: PeftModel,
    chat_format: ChatFormat,
    probes: Sequence[Probe],
    heldout: Sequence[Example],
    general: Sequence[Example],
    token_budget: int,
    *,
    unseen: bool,
    known_losses: tuple[float, float] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Measure a tuned model against its own base: the adapter is switched off for "before".

    Args:
        model: the tuned model.
        chat_format: how conversations are written.
        probes: questions to ask both.
        heldout: examples that were not learned; may be empty.
        general: examples of general knowledge.
        token_budget: most tokens at once.
        unseen: whether the probes are not in the training data.
        known_losses: held-out loss before and after, when the run has measured them already.
        progress: receives the catalogue key of what is being done.
    """
    losses = LossModel(model)
    questions = [probe.messages for probe in probes]
    loss_before, loss_after = known_losses or (None, None)
    if heldout and known_losses is None:
        progress("evaluation.doing_heldout")
        loss_after = losses.mean_loss(heldout, token_budget)
        with model.disable_adapter():
            loss_before = losses.mean_loss(heldout, token_budget)
    losses.use_generation_attention()
    model.eval()
    progress("evaluation.doing_probes")
    after = answer_all(model, chat_format, questions)
    with model.disable_adapter():
        before = answer_all(model, chat_format, questions)
    items = tuple(
        ProbeItem(
            question=probe.question,
            before=old,
            after=new,
            passed_before=probe.passes(old),
            passed_after=probe.passes(new),
        )
        for probe, old, new in zip(probes, before, after, strict=True)
    )
    progress("evaluation.doing_general")
    measured = measure_general(model, general)
    return Proof(
        heldout=HeldoutProof(n=len(heldout), loss_before=loss_before, loss_after=loss_after),
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
    )

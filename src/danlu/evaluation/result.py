"""What a proof says, as values; imports nothing heavy. Making one: ``proof``."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, computed_field

from danlu.i18n import Language, t
from danlu.training.curves import Finding

# A rise of the general loss by more than this is worth a warning (proposal in the research notes: +5 %).
FORGETTING_WARN = 0.05
# From here on the model answers general questions visibly differently, even where the reference answers have become
# no less likely (own rule: half a nat a token; a ten-row persona on 135 M parameters measured 1.15).
MOVED_WARN = 0.5


# Beyond it a loss is so high that its perplexity says nothing, and soon is no number.
_HIGHEST_LOSS = 50.0


class HeldoutProof(BaseModel):
    """Held-out examples before and after; no losses when nothing was kept aside.

    Attributes:
        n: examples; of texts, packed sequences.
        loss_before: mean loss under the base model, in nats a token.
        loss_after: the same under the tuned model.
        texts: whether they are plain texts and not answers.
        learned: whether they are the examples that were learned, because none were kept aside.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    loss_before: float | None
    loss_after: float | None
    texts: bool = False
    learned: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def perplexity_before(self) -> float | None:
        """Among how many equally likely tokens the base model chooses, on average: the exponential of its loss."""
        return _perplexity(self.loss_before)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def perplexity_after(self) -> float | None:
        """The same of the tuned model."""
        return _perplexity(self.loss_after)


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


class Continuation(BaseModel):
    """How a text begins, and how the model goes on before and after."""

    model_config = ConfigDict(frozen=True)

    opening: str
    before: str
    after: str


class PreferenceProof(BaseModel):
    """How often the model takes the side of the judgements, before and after.

    Attributes:
        n: comparisons of a good with a bad answer: pairs, or of labelled answers each good one with each bad one.
        preferred_before: share in which the base model finds the good answer the likelier one, by the token.
        preferred_after: the same of the tuned model.
        moved: share in which training has helped the good answer more than the bad one.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    preferred_before: float
    preferred_after: float
    moved: float


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
        continuations: of plain texts only.
        findings: what the curves of the run say.
        preferences: of judged answers only.
        answered: questions of judged answers, and what the model says to them before and after.
    """

    model_config = ConfigDict(frozen=True)

    heldout: HeldoutProof
    probes: ProbeProof
    general: GeneralProof
    unseen: bool
    continuations: tuple[Continuation, ...] = ()
    findings: tuple[Finding, ...] = ()
    preferences: PreferenceProof | None = None
    answered: tuple[Continuation, ...] = ()

    def verdict(self, lang: Language | None = None) -> str:
        """Return the result in a few sentences, the bad news included."""
        kind = "unseen" if self.unseen else "rows"
        passed = {"before": self.probes.pass_before, "after": self.probes.pass_after}
        parts = [t(f"evaluation.verdict_{kind}", lang, n=self.probes.n, **passed)] if self.probes.n else []
        if self.preferences is not None:
            key = "evaluation.verdict_judged_learned" if self.heldout.learned else "evaluation.verdict_judged"
            parts.append(t(key, lang, **self.preferences.model_dump()))
        parts += self._about_heldout(lang)
        rise = self.general.loss_after / self.general.loss_before - 1
        if rise > FORGETTING_WARN:
            parts.append(t("evaluation.verdict_forgot", lang, rise=rise))
        elif self.general.kl > MOVED_WARN:
            parts.append(t("evaluation.verdict_moved", lang, kl=self.general.kl, rise=rise))
        else:
            parts.append(t("evaluation.verdict_kept", lang, rise=rise))
        parts += [finding.text(lang) for finding in self.findings]
        return " ".join(parts)

    def _about_heldout(self, lang: Language | None) -> list[str]:
        held = self.heldout
        if held.loss_before is None or held.loss_after is None:
            return []
        losses = {"before": held.loss_before, "after": held.loss_after}
        if not held.texts and held.learned:
            return [t("evaluation.verdict_judged_loss", lang, **losses)]
        if not held.texts:
            return [t("evaluation.verdict_heldout", lang, **losses)]
        key = "evaluation.verdict_text_learned" if held.learned else "evaluation.verdict_text"
        perplexities = {"old": held.perplexity_before, "new": held.perplexity_after}
        return [t(key, lang, **losses, **perplexities)]


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(min(loss, _HIGHEST_LOSS))

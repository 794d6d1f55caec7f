"""What a proof says, as values; imports nothing heavy. Making one: ``proof``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from danlu.i18n import Language, t

# A rise of the general loss by more than this is worth a warning (proposal in the research notes: +5 %).
FORGETTING_WARN = 0.05
# From here on the model answers general questions visibly differently, even where the reference answers have become
# no less likely (own rule: half a nat a token; a ten-row persona on 135 M parameters measured 1.15).
MOVED_WARN = 0.5


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
        if rise > FORGETTING_WARN:
            parts.append(t("evaluation.verdict_forgot", lang, rise=rise))
        elif self.general.kl > MOVED_WARN:
            parts.append(t("evaluation.verdict_moved", lang, kl=self.general.kl, rise=rise))
        else:
            parts.append(t("evaluation.verdict_kept", lang, rise=rise))
        return " ".join(parts)

"""The written rules for preference objectives; where none stands here, ``rules`` holds for them too."""

from __future__ import annotations

from typing import Final

from danlu.planning.facts import DataFacts, JudgedFacts
from danlu.planning.rules import Choice
from danlu.recipe import Method
from danlu.training.preference_settings import PreferenceObjectiveName
from danlu.training.settings import ADAPTER_METHODS

FEW: Final = 300
"""Below so many judgements a model learns their most conspicuous trait (length, a phrase) rather than the judgement."""

_RATE: Final = {"dpo": 1e-5, "kto": 1e-5, "orpo": 8e-5}
_ADAPTER_FASTER: Final = 10
_SHORT_RUN_STEPS: Final = 1000
_SHORT_RUN_MOST: Final = {"dpo": 5.0, "kto": 5.0, "orpo": 2.0}
_BALANCED: Final = 4 / 3


def beta(objective: PreferenceObjectiveName) -> Choice:
    """0.1: the DPO, KTO and ORPO papers' own main setting, and the default of TRL and LLaMA-Factory."""
    return Choice(0.1, "planning.orpo_beta" if objective == "orpo" else "planning.beta")


def learning_rate(objective: PreferenceObjectiveName, steps: int, method: Method) -> Choice:
    """1e-5 for an adapter with DPO and KTO, 8e-5 with ORPO; raised for short runs; a tenth for a model's own weights.

    DPO with an adapter: 5e-6 in the examples of LLaMA-Factory and the alignment handbook, 1e-5 in the Tinker cookbook;
    SmolLM2's own DPO took 1e-6 for all weights, 7B models 5e-7. KTO: 5e-7 to 5e-6 for all weights (TRL's guide). ORPO:
    8e-6 for all weights (its paper), because it learns the answers themselves. Those runs have thousands of steps;
    shorter ones get up to five times the rate (ORPO twice), in proportion to what is missing to 1,000 (own rule).
    """
    boost = min(max(_SHORT_RUN_STEPS / max(steps, 1), 1.0), _SHORT_RUN_MOST[objective])
    rate = _RATE[objective] * boost
    adapter = method in ADAPTER_METHODS
    rounded = float(f"{rate if adapter else rate / _ADAPTER_FASTER:.1e}")
    key = "planning.preference_rate" if adapter else "planning.preference_rate_full"
    return Choice(rounded, key, {"objective": objective, "steps": steps})


def batch_size(objective: PreferenceObjectiveName, data: DataFacts) -> Choice:
    """8 pairs, 16 from 2,000 on; of KTO at least 16, whose estimate is a mean over the step (TRL advises 16 to 128)."""
    if objective == "kto":
        return Choice(min(16, data.train), "planning.batch_kto", {"rows": data.train})
    size = min(8 if data.train < 2000 else 16, data.train)
    return Choice(size, "planning.batch_pairs", {"rows": data.train, "size": size})


def epochs(objective: PreferenceObjectiveName, data: DataFacts) -> Choice:
    """3 passes, 2 from 1,000 judgements on (SmolLM2's DPO: 2), 1 from 10,000 on (alignment handbook: 1).

    ORPO takes 3 up to 10,000, too (alignment handbook: 3; its paper 5 to 10).
    """
    if data.train >= 10_000:
        return Choice(1, "planning.preference_epochs", {"rows": data.train})
    passes = 2 if data.train >= 1000 and objective != "orpo" else 3
    return Choice(passes, "planning.preference_epochs", {"rows": data.train})


def warmup_ratio() -> Choice:
    """A tenth of the steps (SmolLM2's DPO, alignment handbook, LLaMA-Factory's example)."""
    return Choice(0.1, "planning.preference_warmup")


def weights(judged: JudgedFacts) -> tuple[Choice, Choice]:
    """The rarer kind of label counts for more, until both sides weigh between 1 : 1 and 4 : 3 (KTO paper, section 4.2).

    Returns:
        The weight of wanted answers, and that of unwanted ones.
    """
    good, bad = judged.good, judged.bad
    params: dict[str, str | int | float] = {"good": good, "bad": bad}
    one = Choice(1.0, "planning.weight_even", params)
    if not good or not bad:
        return one, one
    if good > _BALANCED * bad:
        return one, Choice(round(good / (_BALANCED * bad), 3), "planning.weight_raised", params)
    if good < bad:
        return Choice(round(bad / good, 3), "planning.weight_raised", params), one
    return one, one

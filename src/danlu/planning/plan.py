"""The plan: a recipe with every ``auto`` decided, each decision with its reason, and the predicted time and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from danlu.data.split import HoldoutBy
from danlu.errors import RecipeError
from danlu.files import format_bytes
from danlu.hardware import Machine
from danlu.i18n import Language, t
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelFolder
from danlu.models.versions import ContinuedFrom, DatasetRef, Thinking
from danlu.planning import preference_rules, rules, text_rules
from danlu.planning.facts import DataFacts, TextFacts
from danlu.planning.preferences import decide_preference, preference_objective
from danlu.planning.probe_table import RateProbe
from danlu.planning.requirements import require_built
from danlu.planning.rules import Choice
from danlu.recipe import Recipe, Strategy, Thinks
from danlu.training.settings import ADAPTER_METHODS, FreezeSettings, LoraSettings, TrainSettings

Value = float | int | str | bool | None


class Decision(BaseModel):
    """One value of the plan: who chose it and why.

    Attributes:
        field: dotted name in the recipe.
        value: the value.
        by: ``recipe`` when the person chose it.
        reason: catalogue key.
        params: values of the reason's placeholders.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    value: Value
    by: Literal["recipe", "danlu"]
    reason: str
    params: dict[str, str | int | float] = {}

    def because(self, lang: Language | None = None) -> str:
        """Return the reason as a sentence."""
        return t(self.reason, lang, **self.params)


class Notice(BaseModel):
    """Something to know before the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    params: dict[str, str | int | float] = {}

    def text(self, lang: Language | None = None) -> str:
        """Return the notice as a sentence."""
        return t(self.code, lang, **self.params)


class Prediction(BaseModel):
    """What the run will cost, from a short measurement.

    Attributes:
        predicted_seconds: time of the loop.
        predicted_peak_rss_bytes: largest resident memory of the training process.
        measured_tokens_per_second: packed tokens a second in the measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted_seconds: float
    predicted_peak_rss_bytes: int
    measured_tokens_per_second: float


class DataSummary(BaseModel):
    """The examples in numbers, for the reader of the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    train: int
    holdout: int
    tokens: int
    supervised_tokens: int
    longest: int
    pieces: int | None = None


class MixedData(BaseModel):
    """How much of a data set is learned in an epoch, beside others or by a weight.

    Attributes:
        name: the data set.
        version: its version.
        rows: rows that may be learned, without those that are measured on.
        weight: how often each is learned.
        samples: so many of them are taken; None for all.
        drawn: rows that are learned in an epoch, each as often as it is learned.
        share: how much of an epoch that is, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    rows: int
    weight: float
    samples: int | None
    drawn: int
    share: float


class Together(BaseModel):
    """Several processes that train together.

    Attributes:
        devices: how many.
        strategy: how the weights lie among them.
        offload: what a GPU does not need at the moment is kept in the computer's memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: int
    strategy: Strategy
    offload: bool = False


class Plan(BaseModel):
    """Everything about a run, decided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    objective: str = "sft"
    model: str
    datasets: tuple[DatasetRef, ...]
    holdout_share: float
    max_length: int
    system: str
    thinking: Thinking = "off"
    epochs: float
    data: DataSummary
    settings: TrainSettings
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...] = ()
    prediction: Prediction | None = None
    holdout_dataset: DatasetRef | None = None
    unlabelled: tuple[DatasetRef, ...] = ()
    base_fingerprint: str | None = None
    continued_from: ContinuedFrom | None = None
    new_tokens: tuple[str, ...] = ()
    probe: RateProbe | None = None
    together: Together | None = None
    # Plans from before clusters were looked for do not say it; their runs must be measured on the same rows again.
    holdout_by: HoldoutBy = "question"
    learn: Literal["all", "last"] = "all"
    chat_template: str | None = None
    mix: tuple[MixedData, ...] = ()


class Decider:
    """Takes the recipe's value where there is one, the rule's where it says ``auto``, and notes which.

    Attributes:
        decisions: what was decided, in order.
    """

    def __init__(self, decisions: Sequence[Decision] = ()) -> None:
        self.decisions = [*decisions]

    def decide(self, name: str, wished: Value, rule: Choice) -> Any:
        """Return the value of a field.

        Args:
            name: dotted name in the recipe.
            wished: what the recipe says.
            rule: what is taken for ``auto``.
        """
        if wished != "auto":
            self.decisions.append(Decision(field=name, value=wished, by="recipe", reason="planning.chosen"))
            return wished
        self.decisions.append(
            Decision(field=name, value=rule.value, by="danlu", reason=rule.reason, params=rule.params)
        )
        return rule.value


def decide_holdout(recipe: Recipe, rows: int) -> Choice:
    """Return the share of examples to keep aside: none where the recipe names a data set to measure on."""
    return _wished_share(recipe) or rules.holdout_share(rows)


def decide_text_length(recipe: Recipe, base: ModelFolder, machine: Machine) -> int:
    """Return the length that plain texts are cut to.

    Raises:
        RecipeError: the recipe names one that is longer than the model can take.
    """
    wished, limit = recipe.train.max_length, base.architecture.max_context
    if wished == "auto":
        return int(text_rules.max_length(base, machine, recipe.method).value or 0)
    if wished > limit:
        raise RecipeError("planning.longer_than_model", "train.max_length", value=wished, limit=limit)
    return wished


def decide_text_holdout(recipe: Recipe, pieces: int, tokens: int) -> Choice:
    """Return the share of pieces of text to keep aside: none where the recipe names a data set to measure on."""
    return _wished_share(recipe) or text_rules.holdout_share(pieces, tokens)


def _wished_share(recipe: Recipe) -> Choice | None:
    wished = recipe.data.holdout
    if wished == "auto":
        return None
    return Choice(0.0 if isinstance(wished, str) else float(wished), "planning.chosen")


def decide_thinking(
    plain: ChatFormat, reasoned: int, rows: int = 0, wish: Thinks = "auto"
) -> tuple[ChatFormat, tuple[Notice, ...]]:
    """Return the format that conversations are learned in, and what is to be known of it.

    Args:
        plain: the format of the base model; one without think blocks has no policy and is returned as it is.
        reasoned: conversations with a learned answer that carries its reasoning.
        rows: all conversations.
        wish: what the recipe says.
    """
    if not plain.can_think:
        return plain, ()
    policy = rules.thinking(reasoned, rows, wish)
    thinking: Thinking = "auto" if policy.value == "auto" else "off"
    return replace(plain, thinking=thinking), (Notice(code=policy.reason, params=policy.params),)


def make_plan(
    recipe: Recipe,
    base: ModelFolder,
    data: DataFacts,
    machine: Machine,
    datasets: tuple[DatasetRef, ...],
    holdout: Choice,
    thinking: Thinking = "off",
    notices: tuple[Notice, ...] = (),
    holdout_dataset: DatasetRef | None = None,
) -> Plan:
    """Decide every ``auto`` of a recipe.

    Args:
        recipe: what the person wants.
        base: the base model.
        data: the examples in numbers, split and encoded.
        machine: this machine.
        datasets: the versions of the data sets.
        holdout: the choice that the split was made with.
        thinking: the policy that the examples were encoded with.
        notices: what is known already to be said before the start.
        holdout_dataset: the data set that is measured on, where it is one of its own.

    Raises:
        RecipeError: the recipe asks for something that is not built yet.
    """
    require_built(recipe)
    decider = Decider()
    wish = recipe.train
    decider.decide("data.holdout", recipe.data.holdout, holdout)
    texts = data.texts is not None
    sizing = text_rules if texts else rules
    judged = preference_objective(recipe)
    sizes = preference_rules.batch_size(judged, data) if judged else sizing.batch_size(data)
    batch = decider.decide("train.batch_size", wish.batch_size, sizes)
    often = preference_rules.epochs(judged, data) if judged else sizing.epochs(data)
    if wish.max_steps is None:
        passes = decider.decide("train.num_train_epochs", wish.num_train_epochs, often)
        steps = max(1, math.ceil(data.train * passes / batch))
    else:
        steps = decider.decide("train.max_steps", wish.max_steps, often)
        passes = round(steps * batch / data.train, 3)
    rated = text_rules.learning_rate(base.architecture, batch, recipe.method) if texts else None
    if judged:
        rated = preference_rules.learning_rate(judged, steps, recipe.method)
    rate = decider.decide(
        "train.learning_rate",
        "auto" if wish.learning_rate == "probe" else wish.learning_rate,
        rated or rules.learning_rate(base.architecture, batch, steps, recipe.method),
    )
    kind = decider.decide("train.lr_scheduler_type", wish.lr_scheduler_type, rules.scheduler())
    gently = preference_rules.warmup_ratio() if judged else rules.warmup_ratio()
    if wish.warmup_steps is None:
        warmup = round(decider.decide("train.warmup_ratio", wish.warmup_ratio, gently) * steps)
    else:
        warmup = decider.decide("train.warmup_steps", wish.warmup_steps, gently)
    dtype = decider.decide("train.dtype", wish.dtype, rules.dtype(machine, recipe.method))
    limit = text_rules.max_length(base, machine, recipe.method) if texts else rules.max_length(base.architecture, data)
    longest = decider.decide("train.max_length", wish.max_length, limit)
    lora, freeze = LoraSettings(), FreezeSettings()
    if recipe.method in ADAPTER_METHODS:
        if recipe.lora.adapter is None:
            r = decider.decide("lora.r", recipe.lora.r, rules.rank(base.architecture, data))
            alpha = decider.decide("lora.lora_alpha", recipe.lora.lora_alpha, rules.alpha(r, recipe.lora))
        else:
            r = decider.decide("lora.r", "auto", Choice(recipe.lora.r, "planning.from_adapter"))
            alpha = decider.decide("lora.lora_alpha", "auto", Choice(recipe.lora.lora_alpha, "planning.from_adapter"))
        lora = LoraSettings(**recipe.lora.model_dump(exclude={"adapter"}) | {"r": r, "lora_alpha": alpha})
    elif recipe.method == "freeze":
        layers = decider.decide("freeze.layers", recipe.freeze.layers, rules.thawed_layers(base.architecture))
        freeze = FreezeSettings(**recipe.freeze.model_dump() | {"layers": layers})
    preference = decide_preference(recipe.preference, judged, data, decider.decide) if judged else None
    every = decider.decide("eval.every", recipe.eval.every, rules.eval_every(steps, data))
    stop = decider.decide("eval.early_stopping", recipe.eval.early_stopping, rules.early_stopping(data))
    budget = rules.token_budget(data, machine, base, recipe.method)
    few = not texts and not judged and data.train <= rules.FEW
    chosen_by_danlu = wish.num_train_epochs == "auto" and wish.max_steps is None
    settings = TrainSettings(
        learning_rate=rate,
        steps=steps,
        batch_size=batch,
        method=recipe.method,
        lora=lora,
        freeze=freeze,
        token_budget=max(int(budget.value or 0), data.judged.longest if data.judged else 0),
        max_grad_norm=wish.max_grad_norm,
        weight_decay=wish.weight_decay,
        optim=wish.optim,
        scheduler=kind,
        neftune_noise_alpha=wish.neftune_noise_alpha,
        label_smoothing_factor=wish.label_smoothing_factor,
        warmup_steps=warmup,
        dtype=dtype,
        seed=wish.seed,
        eval_every=every,
        patience=3 if stop and data.holdout else None,
        stop_loss=0.05 if few and chosen_by_danlu and not wish.label_smoothing_factor else None,
        checkpoint_every=max(1, every),
        preference=preference,
    )
    return Plan(
        objective=recipe.objective,
        model=base.name,
        datasets=datasets,
        holdout_share=float(holdout.value or 0),
        holdout_by="cluster",
        max_length=longest,
        system=recipe.system,
        thinking=thinking,
        epochs=passes,
        data=DataSummary(
            rows=data.rows,
            train=data.train,
            holdout=data.holdout,
            tokens=data.tokens.total,
            supervised_tokens=data.tokens.supervised,
            longest=data.tokens.longest,
            pieces=data.texts.pieces if data.texts else None,
        ),
        settings=settings,
        decisions=tuple(decider.decisions),
        notices=(*_notices(data, longest, recipe), *_memory_notices(settings, base, machine, data), *notices),
        holdout_dataset=holdout_dataset,
    )


def with_probed_rate(plan: Plan, probe: RateProbe) -> Plan:
    """Return a plan whose learning rate is the one that was found by trying."""
    tried = ", ".join(
        f"{trial.learning_rate:.1e}: {'–' if trial.loss is None else format(trial.loss, '.3f')}"
        for trial in probe.trials
    )
    reason = "planning.rate_probed" if probe.heldout else "planning.rate_probed_rows"
    params: dict[str, str | int | float] = {"steps": probe.steps, "before": probe.loss_before, "tried": tried}
    decided = Decision(field="train.learning_rate", value=probe.chosen, by="danlu", reason=reason, params=params)
    return plan.model_copy(
        update={
            "settings": plan.settings.model_copy(update={"learning_rate": probe.chosen}),
            "decisions": tuple(decided if item.field == decided.field else item for item in plan.decisions),
            "probe": probe,
        }
    )


def _notices(data: DataFacts, longest: int, recipe: Recipe) -> list[Notice]:
    notices = []
    if data.texts is not None:
        notices += _text_notices(data.rows, data.texts, data.tokens.supervised, longest)
    elif data.judged is not None:
        if data.rows < preference_rules.FEW:
            params: dict[str, str | int | float] = {"rows": data.rows, "enough": preference_rules.FEW}
            notices.append(Notice(code="planning.notice_few_judged", params=params))
    elif data.rows < 90:
        notices.append(Notice(code="planning.notice_few_rows", params={"rows": data.rows}))
    if recipe.method == "qlora":
        notices.append(Notice(code="planning.notice_qlora"))
    return notices


def _memory_notices(settings: TrainSettings, base: ModelFolder, machine: Machine, data: DataFacts) -> list[Notice]:
    """Say before anything is loaded that memory will not suffice, and what would fit."""
    shape, room, rank = base.architecture, machine.available_bytes, settings.lora.r
    value_bytes = 4 if settings.dtype == "float32" else 2
    needed = shape.training_bytes(
        settings.method, settings.token_budget, rank, value_bytes, settings.lora.quantization_bit
    )
    if needed <= room:
        return []
    sizes: dict[str, str | int | float] = {"needed": format_bytes(needed), "room": format_bytes(room)}
    fitting = rules.methods_that_fit(shape, rank, data.tokens.longest, value_bytes, room)
    if not fitting:
        return [Notice(code="planning.notice_memory_none", params=sizes)]
    return [Notice(code="planning.notice_memory", params={**sizes, "methods": ", ".join(fitting)})]


def _text_notices(documents: int, texts: TextFacts, tokens: int, longest: int) -> list[Notice]:
    notices = []
    if texts.cut:
        params: dict[str, str | int | float] = {
            "cut": texts.cut, "documents": documents, "pieces": texts.pieces, "length": longest,
        }  # fmt: skip
        notices.append(Notice(code="planning.notice_cut", params=params))
    if tokens < text_rules.FEW_TOKENS:
        notices.append(Notice(code="planning.notice_few_tokens", params={"tokens": tokens}))
    return notices

"""The written rules: what is chosen when a recipe says ``auto``, and why.

Each rule is a pure function from facts to a value and a reason. ``docs/plan-and-settings.md`` has them as a table
with their sources; "Tinker" is the Tinker cookbook's ``hyperparam_utils`` and its published sweep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from danlu.hardware import Machine
from danlu.models.architecture import Architecture
from danlu.models.library import ModelFolder
from danlu.planning.facts import DataFacts
from danlu.recipe import Method, Thinks
from danlu.recipe_lora import LoraSection
from danlu.training.settings import ADAPTER_METHODS, TrainSettings

FEW: Final = 20
"""Up to so many rows, a run is about learning these very sentences."""

_TINKER_BASE: Final = 5e-4
_TINKER_EXPONENT: Final = {"llama": 0.781}
_TINKER_EXPONENT_OTHER: Final = 0.0775
_TINKER_BATCH: Final = 128
SHORT_RUN_STEPS: Final = 1000
_SHORT_RUN_MOST: Final = 12.0
_CAP: Final = 1.5
_RANKS: Final = (16, 32, 64, 128)
_ADAPTER_FASTER: Final = 10
_RUN_BYTES: Final = 500_000_000
_MEMORY_SHARE: Final = 0.6
_MOST_TOKENS: Final = 1024


@dataclass(frozen=True)
class Choice:
    """A value with its reason.

    Attributes:
        value: what was chosen.
        reason: catalogue key of the reason.
        params: values of the reason's placeholders.
    """

    value: float | int | str | bool | None
    reason: str
    params: dict[str, str | int | float] = field(default_factory=dict)


_HELDOUT_ROWS: Final = 1000


def holdout_share(rows: int) -> Choice:
    """Keep a tenth aside, of many rows about a thousand, and nothing of very few rows: each is needed for learning.

    A mean over a thousand answers is certain to about a hundredth of a nat, and every measurement costs time.

    Args:
        rows: those whose answers people wrote; there may be others.
    """
    if rows == 0:
        return Choice(0.0, "planning.holdout_pseudo")
    if rows <= FEW:
        return Choice(0.0, "planning.holdout_few", {"rows": rows})
    if rows > _HELDOUT_ROWS * 10:
        return Choice(round(_HELDOUT_ROWS / rows, 6), "planning.holdout_thousand", {"rows": _HELDOUT_ROWS})
    return Choice(0.1, "planning.holdout_tenth")


def thinking(reasoned: int, rows: int = 0, wish: Thinks = "auto") -> Choice:
    """What a model that can think is taught: its own reasoning where the answers carry some, else to answer at once.

    Args:
        reasoned: conversations with a learned answer that carries its reasoning.
        rows: all conversations.
        wish: what the recipe says.
    """
    if wish == "off" and reasoned:
        return Choice("off", "templates.notice_thoughts_left_out", {"rows": reasoned})
    if wish == "on" and reasoned < rows:
        return Choice("auto", "templates.notice_thinking_unlearned", {"rows": rows - reasoned})
    if reasoned:
        return Choice("auto", "planning.notice_thinking_learned", {"rows": reasoned})
    return Choice("off", "planning.notice_thinking_off")


def batch_size(data: DataFacts) -> Choice:
    """Small data needs many corrections, so few examples each; above 2,000 rows 16 (LoRA loses from 32 on).

    Ten rows of Chinese are learned by heart in the same number of passes with 2, 3 and 5 at a time (measured); more
    at a time is faster by the token.
    """
    if data.train <= FEW:
        size = min(4, data.train)
        return Choice(size, "planning.batch_few", {"rows": data.train, "size": size})
    if data.train < 2000:
        return Choice(8, "planning.batch_small", {"rows": data.train})
    return Choice(16, "planning.batch_large", {"rows": data.train})


def epochs(data: DataFacts) -> Choice:
    """More passes over fewer rows; aim at 100 steps or more, but at most 3 passes from 1,000 rows on."""
    for rows, passes in ((FEW, 10), (50, 8), (300, 6), (1000, 4)):
        if data.train <= rows:
            return Choice(passes, "planning.epochs_small", {"rows": data.train})
    return Choice(3 if data.train < 20_000 else 1, "planning.epochs_large", {"rows": data.train})


def learning_rate(model: Architecture, batch: int, steps: int, method: Method = "lora") -> Choice:
    """Tinker's formula for LoRA, raised for short runs and capped below where its sweep diverged.

    ``5e-4 · (2000 / H)^p · sqrt(batch / 128)`` with p = 0.781 for llama and 0.0775 for others; runs under 1,000 steps
    get up to twelve times that (Tinker: about fifteen for very short runs), but never more than 1.5 times the value
    at batch 128 (72 of 80 divergences of the sweep were at 3e-3). The model's own weights learn at a tenth of
    the rate of an adapter (LoRA Without Regret; Tinker's ``get_lora_lr_over_full_finetune_lr``).
    """
    exponent = _TINKER_EXPONENT.get(model.type, _TINKER_EXPONENT_OTHER)
    full = _TINKER_BASE * (2000 / model.hidden_size) ** exponent
    boost = min(max(SHORT_RUN_STEPS / max(steps, 1), 1.0), _SHORT_RUN_MOST)
    rate = min(full * math.sqrt(batch / _TINKER_BATCH) * boost, full * _CAP)
    rounded = float(f"{rate if method in ADAPTER_METHODS else rate / _ADAPTER_FASTER:.1e}")
    params: dict[str, str | int | float] = {"family": model.type, "hidden": model.hidden_size, "steps": steps}
    return Choice(
        rounded, "planning.learning_rate" if method in ADAPTER_METHODS else "planning.learning_rate_full", params
    )


def rank(model: Architecture, data: DataFacts) -> Choice:
    """The smallest rank whose adapter has more numbers than there are learned tokens (Tinker), at least 16."""
    for candidate in _RANKS:
        if model.lora_parameters(candidate) >= data.tokens.supervised:
            break
    return Choice(candidate, "planning.rank", {"tokens": data.tokens.supervised})


def alpha(r: int, lora: LoraSection) -> Choice:
    """Fixed at 32 (2 r at rank 16), so that one learning rate fits every rank (LoRA Without Regret).

    With rsLoRA 8, the same at rank 16. PiSSA begins with the adapter at full strength, so there it is the rank
    (its authors' choice): the adapter counts once.
    """
    if lora.init_lora_weights == "pissa":
        return Choice(math.sqrt(r) if lora.use_rslora else float(r), "planning.alpha_pissa", {"r": r})
    if lora.use_rslora:
        return Choice(8.0, "planning.alpha_rslora", {"r": r})
    return Choice(32.0, "planning.alpha", {"r": r})


def max_length(model: Architecture, data: DataFacts) -> Choice:
    """The model's own limit, so that no example is ever too long without need."""
    return Choice(model.max_context, "planning.max_length", {"longest": data.tokens.longest})


def thawed_layers(model: Architecture) -> Choice:
    """An eighth of the layers, at least two: the last ones, which shape the answer."""
    return Choice(max(2, model.layers // 8), "planning.thawed_layers", {"layers": model.layers})


def dtype(machine: Machine, method: Method = "lora") -> Choice:
    """The number format this machine multiplies faster in, by measurement.

    Weights that are trained themselves stay in fp32: bf16 has 8 bits, and most corrections are smaller than that.
    """
    if method not in ADAPTER_METHODS:
        return Choice("float32", "planning.dtype_full")
    speeds = {name: round(speed) for name, speed in machine.gflops.items()}
    return Choice(machine.fastest_dtype, "planning.dtype", {"fp32": speeds["float32"], "bf16": speeds["bfloat16"]})


def scheduler() -> Choice:
    """Linear to zero (Tinker)."""
    return Choice("linear", "planning.scheduler")


def warmup_ratio() -> Choice:
    """5 % of the steps (3 to 10 % in every guide that gives a number)."""
    return Choice(0.05, "planning.warmup")


def eval_every(steps: int, data: DataFacts) -> Choice:
    """Six times a run, and at least every 100 steps; three times where there is no held-out loss to be measured."""
    rounds = 6 if data.holdout else 3
    return Choice(max(1, min(math.ceil(steps / rounds), 100)), "planning.eval_every", {"rounds": rounds})


def early_stopping(data: DataFacts) -> Choice:
    """Only where held-out examples can say that it no longer gets better."""
    if data.holdout == 0:
        return Choice(False, "planning.early_stopping_off")
    return Choice(True, "planning.early_stopping_on")


def token_budget(data: DataFacts, machine: Machine, base: ModelFolder, method: Method = "lora") -> Choice:
    """As many tokens at once as memory allows, at most 1024, beyond which nothing is gained (measured on two cores)."""
    budget = max(min(_MOST_TOKENS, fitting_tokens(machine, base, method)), data.tokens.longest)
    return Choice(budget, "planning.token_budget")


def fitting_tokens(machine: Machine, base: ModelFolder, method: Method = "lora") -> int:
    """Return how many tokens can be computed at once in the memory that is free."""
    # A copy in fp32; of weights that are trained themselves there are a gradient and two values of the optimizer, too.
    held = 16 * base.architecture.parameters if method == "full" else 2 * base.bytes
    room = machine.available_bytes * _MEMORY_SHARE - held
    return int(max(room, 0) / base.architecture.activation_bytes(1, bytes_per_value=4))


def methods_that_fit(base: Architecture, rank: int, tokens: int, value_bytes: int, room: int) -> list[Method]:
    """Return the methods that need less memory than there is, from the most thorough to the most sparing."""
    methods: tuple[Method, ...] = ("full", "freeze", "lora", "qlora")
    return [method for method in methods if base.training_bytes(method, tokens, rank, value_bytes) <= room]


def disk_needed(settings: TrainSettings, base: Architecture) -> int:
    """Return the bytes that a run may take on the disk, with its exports not counted.

    Of what is trained, in fp32: two checkpoints and a third in the making, each with the two values of the optimizer;
    the best state, and what comes out. Half a gigabyte for what is not in proportion to it.
    """
    sizes = {"full": base.parameters, "freeze": base.parameters // 8}
    trained = sizes.get(settings.method, base.lora_parameters(settings.lora.r))
    return 4 * trained * (3 * 3 + 2) + _RUN_BYTES

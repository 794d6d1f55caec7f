"""What a recipe asks for that cannot be had, or not together; looked at before anything is fetched."""

from __future__ import annotations

from importlib.util import find_spec

from danlu.errors import RecipeError
from danlu.planning.preferences import require_preference
from danlu.recipe import Recipe


def require_built(recipe: Recipe) -> None:
    """Check that everything a recipe asks for exists in this version; costs nothing, so it can be asked first.

    Raises:
        RecipeError: something does not exist yet.
    """
    _require_one_of(recipe)
    require_preference(recipe)
    _require_semi(recipe)
    if recipe.train.learning_rate == "probe" and recipe.objective in {"dpo", "kto"}:
        raise RecipeError("planning.probe_judged", "train.learning_rate", objective=recipe.objective)
    if recipe.method == "qlora" and find_spec("bitsandbytes") is None:
        raise RecipeError("planning.needs_extra", "method", value="qlora", extra="gpu")
    if recipe.method == "qlora" and recipe.lora.init_lora_weights != "default":
        raise RecipeError("planning.qlora_with_init", "lora.init_lora_weights")
    if recipe.method in {"full", "freeze"} and recipe.train.dtype == "bfloat16":
        raise RecipeError("planning.weights_need_fp32", "train.dtype", value=recipe.method)
    if recipe.lora.use_dora and recipe.lora.init_lora_weights != "default":
        raise RecipeError("planning.dora_with_init", "lora.init_lora_weights")
    if recipe.train.optim == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise RecipeError("planning.needs_extra", "train.optim", value="adamw_8bit", extra="gpu")
    _require_strategy(recipe)


def _require_strategy(recipe: Recipe) -> None:
    """Refuse ways to train together that a method or an optimizer does not go with, and DeepSpeed where it is not."""
    wish, optim = recipe.resources, recipe.train.optim
    if wish.strategy == "auto":
        return
    if wish.devices in {"auto", 1}:
        raise RecipeError("planning.strategy_alone", "resources.strategy", value=wish.strategy)
    if wish.strategy == "ddp":
        return
    if wish.strategy.startswith("zero") and find_spec("deepspeed") is None:
        raise RecipeError("planning.needs_extra", "resources.strategy", value=wish.strategy, extra="deepspeed")
    if recipe.method == "qlora":
        raise RecipeError("planning.strategy_qlora", "resources.strategy", value=wish.strategy)
    adapter = recipe.method == "lora"
    if optim not in {"auto", "adamw"} and not (wish.strategy == "fsdp" and adapter):
        raise RecipeError("planning.strategy_optim", "resources.strategy", value=wish.strategy, optim=optim)
    if wish.strategy in {"fsdp", "zero3"} and recipe.new_tokens:
        raise RecipeError("planning.strategy_new_tokens", "resources.strategy", value=wish.strategy)


def _require_semi(recipe: Recipe) -> None:
    """Refuse texts that nothing reads, semi without texts, and semi with smoothed targets, which it does not have."""
    if recipe.objective != "semi":
        if recipe.data.unlabelled:
            raise RecipeError("planning.unlabelled_without_semi", "data.unlabelled", objective=recipe.objective)
        return
    if not recipe.data.unlabelled:
        raise RecipeError("planning.semi_without_texts", "data.unlabelled")
    if recipe.train.label_smoothing_factor:
        raise RecipeError("planning.semi_with_smoothing", "train.label_smoothing_factor")


def _require_one_of(recipe: Recipe) -> None:
    """Refuse two answers to one question."""
    wish = recipe.train
    pairs: tuple[tuple[str, object, str, object], ...] = (
        ("max_steps", wish.max_steps, "num_train_epochs", wish.num_train_epochs),
        ("warmup_steps", wish.warmup_steps, "warmup_ratio", wish.warmup_ratio),
    )
    for one, value, other, beside in pairs:
        if value is not None and beside != "auto":
            raise RecipeError("planning.two_answers", f"train.{one}", one=f"train.{one}", other=f"train.{other}")

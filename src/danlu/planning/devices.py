"""Decides how many processes train together and how the weights lie among them."""

from __future__ import annotations

from typing import Final

from danlu.errors import RecipeError
from danlu.hardware import Machine
from danlu.models.library import ModelFolder
from danlu.planning.plan import Decider, Notice, Plan, Together
from danlu.planning.rules import Choice
from danlu.recipe import Recipe

DEVICES: Final = "resources.devices"
STRATEGY: Final = "resources.strategy"


def decide_devices(plan: Plan, recipe: Recipe, base: ModelFolder, machine: Machine) -> Plan:
    """Return the plan with the decision in it.

    Args:
        plan: everything else decided.
        recipe: what the person wants.
        base: the base model.
        machine: the machine.

    Raises:
        RecipeError: there are more processes than examples in a step.
    """
    wish, settings, decider = recipe.resources, plan.settings, Decider(plan.decisions)
    devices = int(decider.decide(DEVICES, wish.devices, Choice(1, "planning.devices_one")))
    if devices == 1:
        return plan.model_copy(update={"decisions": tuple(decider.decisions)})
    _require_work(plan, devices)
    need = base.architecture.training_bytes(
        settings.method, settings.token_budget, settings.lora.r, 4 if settings.dtype == "float32" else 2
    )
    room = machine.available_bytes
    sizes: dict[str, str | int | float] = {"devices": devices}
    rule = Choice("ddp", "planning.strategy_ddp", sizes)
    if need * devices > room and settings.method != "qlora":
        rule = Choice("fsdp", "planning.strategy_fsdp", sizes)
    strategy = decider.decide(STRATEGY, wish.strategy, rule)
    return plan.model_copy(
        update={
            "decisions": tuple(decider.decisions),
            "together": Together(devices=devices, strategy=strategy, offload=wish.offload),
            "notices": (*plan.notices, Notice(code="planning.notice_unpredicted", params=sizes)),
        }
    )


def with_devices(plan: Plan, devices: int | None) -> Together | None:
    """Return how a run that was planned goes on: as planned, or with another number of processes.

    Raises:
        RecipeError: there are more processes than examples in a step.
    """
    if devices is None:
        return plan.together
    if devices == 1:
        return None
    _require_work(plan, devices)
    planned = plan.together or Together(devices=devices, strategy="ddp")
    return planned.model_copy(update={"devices": devices})


def _require_work(plan: Plan, devices: int) -> None:
    step = plan.settings.batch_size + plan.settings.texts_per_step
    if devices > step:
        raise RecipeError("planning.devices_idle", DEVICES, devices=devices, examples=step)

"""The form in which conversations are learned: the chat template, the answers that count, and whether thinking does.

Not for choosing what a model that can think is taught (``rules.thinking``), which the examples are encoded with.
"""

from __future__ import annotations

from danlu.models.base_template import TEMPLATE_FILE, WrittenTemplate
from danlu.planning.plan import Decider, Plan
from danlu.planning.rules import Choice
from danlu.recipe import Recipe


def decide_form(plan: Plan, recipe: Recipe, template: WrittenTemplate | None, *, can_think: bool) -> Plan:
    """Return a plan that says, with reasons, in what form conversations are learned.

    Of plain texts it says only what template the model was given, to be talked to with.

    Args:
        plan: the plan so far.
        recipe: what the person wants.
        template: the chat template that the model was given; None where it keeps its own.
        can_think: whether the template has think blocks.
    """
    plan = plan.model_copy(update={"chat_template": None if template is None else template.name})
    texts = plan.objective == "pretrain"
    if texts and template is None:
        return plan
    decider = Decider(plan.decisions)
    if template is None:
        decider.decide("chat_template", "auto", Choice("own", "templates.own"))
    elif recipe.lora.adapter is not None and template.name == TEMPLATE_FILE:
        decider.decide("chat_template", "auto", Choice(template.name, "planning.from_adapter"))
    elif recipe.chat_template == "auto":
        decider.decide("chat_template", "auto", Choice(template.name, "templates.given", {"end": template.token}))
    else:
        decider.decide("chat_template", template.name, Choice(template.name, "templates.own"))
    if plan.settings.preference is None and not texts:
        last = recipe.data.learn == "last"
        decider.decide("data.learn", "last" if last else "auto", Choice("all", "templates.learn_all"))
    if can_think and not texts:
        thinks = plan.thinking == "auto"
        reason = "templates.thinks" if thinks else "templates.thinks_not"
        decider.decide("thinking", recipe.thinking, Choice("on" if thinks else "off", reason))
    return plan.model_copy(update={"learn": recipe.data.learn, "decisions": tuple(decider.decisions)})

"""The plan: every value decided, each with who chose it and why; what is not built is refused by name."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from danlu.data.examples import Example
from danlu.errors import RecipeError
from danlu.files import format_bytes
from danlu.models.versions import DatasetRef
from danlu.planning import rules
from danlu.planning.estimate import evenly, longest_steps, predict
from danlu.planning.plan import Plan, Prediction, decide_holdout, make_plan
from danlu.planning.requirements import require_built
from danlu.recipe_file import load_recipe
from danlu.training.adapter import attach_lora
from danlu.training.objectives import TokenMean
from danlu.training.trained import trainable
from tests.planning.test_rules import base, data, machine, model
from tests.tiny import tiny_model
from tests.training.fitting import LORA, examples, settings

SETS = (DatasetRef(name="persona", version="20250101-000000-00000000", sha256="0" * 64),)


def recipe(*words: str):
    return load_recipe(None, ["model=m", "data.train=a.json", *words])


def plan(*words: str, facts=None, here=None) -> Plan:
    wanted, facts = recipe(*words), facts or data()
    return make_plan(wanted, base(), facts, here or machine(), SETS, decide_holdout(wanted, facts.rows))


def decision(made: Plan, field: str):
    (found,) = [item for item in made.decisions if item.field == field]
    return found


def test_everything_on_auto_is_decided_by_the_rules():
    made = plan()
    assert {item.by for item in made.decisions} == {"danlu"}
    chosen = made.settings
    assert (chosen.batch_size, made.epochs) == (8, 6)
    assert chosen.steps == math.ceil(100 * 6 / 8) == 75
    assert chosen.learning_rate == rules.learning_rate(model(), 8, 75).value
    assert (chosen.lora.r, chosen.lora.lora_alpha, chosen.lora.lora_dropout) == (16, 32.0, 0.0)
    assert (chosen.scheduler, chosen.warmup_steps, chosen.dtype) == ("linear", 4, "float32")
    assert (chosen.eval_every, chosen.checkpoint_every, chosen.patience) == (13, 13, 3)
    assert chosen.token_budget == 1024
    assert (made.holdout_share, made.max_length) == (0.1, 8192)
    assert made.data.rows == 110
    assert made.datasets == SETS


@pytest.mark.parametrize(
    ("word", "field", "read"),
    [
        ("train.learning_rate=3e-5", "train.learning_rate", lambda made: made.settings.learning_rate == 3e-5),
        ("train.batch_size=32", "train.batch_size", lambda made: made.settings.batch_size == 32),
        ("train.num_train_epochs=0.5", "train.num_train_epochs", lambda made: made.settings.steps == 7),
        ("train.lr_scheduler_type=cosine", "train.lr_scheduler_type", lambda made: made.settings.scheduler == "cosine"),
        ("train.warmup_ratio=0.2", "train.warmup_ratio", lambda made: made.settings.warmup_steps == 15),
        ("train.warmup_steps=9", "train.warmup_steps", lambda made: made.settings.warmup_steps == 9),
        ("train.max_steps=17", "train.max_steps", lambda made: made.settings.steps == 17),
        ("train.max_length=512", "train.max_length", lambda made: made.max_length == 512),
        ("train.dtype=bfloat16", "train.dtype", lambda made: made.settings.dtype == "bfloat16"),
        ("lora.r=64", "lora.r", lambda made: made.settings.lora.r == 64),
        ("lora.lora_alpha=8", "lora.lora_alpha", lambda made: made.settings.lora.lora_alpha == 8),
        ("eval.every=5", "eval.every", lambda made: made.settings.eval_every == 5),
        ("eval.early_stopping=false", "eval.early_stopping", lambda made: made.settings.patience is None),
        ("data.holdout=0.25", "data.holdout", lambda made: made.holdout_share == 0.25),
        ("data.holdout=0", "data.holdout", lambda made: made.holdout_share == 0),
    ],
)
def test_what_a_person_chose_is_taken_and_said_to_be_theirs(word, field, read):
    made = plan(word)
    assert read(made)
    assert decision(made, field).by == "recipe"
    assert decision(made, field).because("en") == "You chose it."
    others = [item for item in made.decisions if item.field != field]
    assert {item.by for item in others} == {"danlu"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train.max_steps=9", "train.num_train_epochs=2"], "train.max_steps"),
        (["train.warmup_steps=9", "train.warmup_ratio=0.1"], "train.warmup_steps"),
    ],
)
def test_two_answers_to_one_question_are_refused(words, named):
    with pytest.raises(RecipeError) as caught:
        plan(*words)
    assert (caught.value.key, caught.value.where) == ("planning.two_answers", named)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_rates_are_not_tried_where_scores_of_the_untouched_model_are_needed(objective):
    with pytest.raises(RecipeError) as caught:
        require_built(recipe(f"objective={objective}", "train.learning_rate=probe"))
    assert caught.value.key == "planning.probe_judged"
    assert "train.learning_rate=auto" in caught.value.message("en")


def test_what_has_no_auto_is_carried_over():
    words = ["train.max_grad_norm=0.3", "train.weight_decay=0", "train.seed=7", "system=Hi"]
    made = plan(*words, "lora.target_modules=[q_proj]")
    assert (made.settings.max_grad_norm, made.settings.weight_decay, made.settings.seed) == (0.3, 0.0, 7)
    assert made.settings.lora.target_modules == ("q_proj",)
    assert made.system == "Hi"


@pytest.mark.parametrize(
    ("words", "train", "stop_loss"),
    [([], 20, 0.05), ([], 21, None), (["train.num_train_epochs=10"], 20, None)],
)
def test_very_few_rows_are_learned_by_heart_unless_the_passes_were_chosen(words, train, stop_loss):
    assert plan(*words, facts=data(train, holdout=0)).settings.stop_loss == stop_loss


def test_without_held_out_rows_nothing_stops_early():
    made = plan(facts=data(10, holdout=0))
    assert made.settings.patience is None
    assert plan("eval.early_stopping=true", facts=data(10, holdout=0)).settings.patience is None


@pytest.mark.parametrize(("rows", "codes"), [(80, ["planning.notice_few_rows"]), (90, [])])
def test_few_rows_are_a_notice(rows, codes):
    made = plan(facts=data(rows, holdout=0))
    assert [notice.code for notice in made.notices] == codes
    assert all(str(rows) in notice.text(language) for notice in made.notices for language in ("en", "zh"))


@pytest.mark.parametrize(
    ("free", "word", "code", "fits"),
    [
        (24e9, "method=full", None, None),
        (3e9, "method=full", "planning.notice_memory", "lora"),
        (1.5e9, "method=lora", "planning.notice_memory", "qlora"),
        (0.7e9, "method=lora", "planning.notice_memory_none", None),
    ],
)
def test_too_little_memory_is_said_before_the_start_with_what_would_fit(free, word, code, fits):
    made = plan(word, here=replace(machine(), available_bytes=int(free)))
    notices = [item for item in made.notices if "memory" in item.code]
    assert [item.code for item in notices] == ([code] if code else [])
    for item in notices:
        assert format_bytes(int(free)) in item.text("en")
        assert fits is None or f"{fits}." in item.text("en").replace(", ", ".")


def test_room_on_the_disk_grows_with_what_is_trained():
    needs = {
        method: rules.disk_needed(plan(f"method={method}").settings, model()) for method in ("lora", "freeze", "full")
    }
    assert needs["lora"] < needs["freeze"] < needs["full"]
    # Two checkpoints and a third in the making, each three values a weight, the best and the finished weights.
    assert needs["full"] > 44 * model().parameters


def test_every_decision_can_be_said_in_both_languages():
    for item in plan().decisions:
        assert item.because("en") != item.because("zh")


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_weights_that_learn_themselves_are_planned_in_fp32_at_a_tenth_of_the_rate(method):
    adapter, own = plan(), plan(f"method={method}")
    assert (own.settings.method, own.settings.dtype) == (method, "float32")
    assert own.settings.learning_rate == pytest.approx(adapter.settings.learning_rate / 10, rel=0.05)
    fields = {item.field for item in own.decisions}
    assert not {"lora.r", "lora.lora_alpha"} & fields
    assert ("freeze.layers" in fields) == (method == "freeze")
    with pytest.raises(RecipeError) as caught:
        require_built(recipe(f"method={method}", "train.dtype=bfloat16"))
    assert caught.value.key == "planning.weights_need_fp32"


def test_a_plan_survives_json():
    made = plan("system=你好").model_copy(
        update={
            "prediction": Prediction(
                predicted_seconds=1.5, predicted_peak_rss_bytes=10, measured_tokens_per_second=99.5
            )
        }
    )
    assert Plan.model_validate_json(made.model_dump_json()) == made
    value = json.loads(made.model_dump_json())
    assert value["prediction"]["predicted_seconds"] == 1.5
    with pytest.raises(ValidationError):
        Plan.model_validate({**value, "format": 2})


def test_the_cost_is_predicted_from_a_real_step_that_leaves_no_trace():
    tuned = attach_lora(tiny_model(), LORA, seed=1)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    few, many = settings(steps=10), settings(steps=1000)
    prediction = predict(tuned, examples(), examples(4, seed=9), few)
    assert prediction.predicted_seconds > 0
    assert prediction.predicted_peak_rss_bytes > 50_000_000
    assert prediction.measured_tokens_per_second > 0
    assert all(parameter.grad is None for parameter in trainable(tuned).values())
    after = tuned.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    more = predict(tuned, examples(), examples(4, seed=9), many)
    steps_ratio = more.predicted_seconds * more.measured_tokens_per_second
    assert steps_ratio > 50 * prediction.predicted_seconds * prediction.measured_tokens_per_second


def test_of_a_long_run_some_steps_are_laid_out_and_those_with_the_longest_examples():
    assert evenly(5, 400) == [0, 1, 2, 3, 4]
    few = evenly(1000, 400)
    assert (len(few), few[0], len(set(few))) == (400, 0, 400)
    assert few[-1] >= 990, "to the end of the run"
    lengths = [3, 9, 4, 4, 8, 2]
    given = [Example((1,) * length, (True,) * length, row) for row, length in enumerate(lengths, start=1)]
    assert longest_steps([[0, 2], [3, 5], [1, 0], [4, 2]], given, 2) == [2, 3]

    class Counting(TokenMean):
        steps: list[int]

        def pieces(self, losses, step, budget):
            self.steps.append(len(step))
            return super().pieces(losses, step, budget)

    counting = Counting()
    counting.steps = []
    tuned = attach_lora(tiny_model(), LORA, seed=1)
    predict(tuned, examples(), [], settings(steps=3000), counting)
    assert len(counting.steps) == 400 + 8

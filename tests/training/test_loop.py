"""The loop: it learns, its mean does not depend on how a step is cut, and an interruption changes nothing."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from danlu.data.batches import step_members
from danlu.data.examples import Example
from danlu.errors import TrainingError
from danlu.events import Eval, Finished, Sample, SampleAnswer, Step, Warned
from danlu.training.adapter import attach_lora
from danlu.training.checkpoint import Checkpoints
from danlu.training.forward import LossModel
from danlu.training.loop import Job, fit
from danlu.training.schedule import learning_rate
from danlu.training.trained import trainable
from tests.tiny import tiny_model
from tests.training.fitting import LORA, assert_bit_equal, examples, run, settings, weights

# Losses of the first four steps by batch size, made with the plain way below (torch 2.13, one thread).
LOSSES = {
    1: [6.259288, 5.351583, 6.703166, 6.504994],
    4: [6.315735, 6.081078, 6.592633, 6.101516],
    10: [6.312824, 6.255118, 6.125503, 5.903913],
}


def plain_losses(batch_size: int, steps: int) -> list[float]:
    """The same run in the plainest way: one padded batch a step through the model's own loss, torch's own AdamW."""
    chosen = settings(batch_size=batch_size, steps=steps)
    model = attach_lora(tiny_model(), LORA, seed=chosen.seed)
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=chosen.weight_decay)
    rows = examples()
    losses = []
    for step, members in enumerate(step_members(len(rows), batch_size, chosen.seed, steps)):
        batch = [rows[index] for index in members]
        longest = max(len(row.input_ids) for row in batch)
        ids = torch.tensor([[*row.input_ids, *[0] * (longest - len(row.input_ids))] for row in batch])
        mask = torch.tensor([[1] * len(row.input_ids) + [0] * (longest - len(row.input_ids)) for row in batch])
        learned = torch.tensor([[*row.learn, *[False] * (longest - len(row.learn))] for row in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.where(learned, ids, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, chosen.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(step, chosen)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_the_plain_way_gives_the_losses_written_here(batch_size):
    assert plain_losses(batch_size, 4) == pytest.approx(LOSSES[batch_size], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
@pytest.mark.parametrize(
    ("token_budget", "share_prefix"), [(1, True), (40, True), (40, False), (77, True), (4096, True)]
)
def test_the_loss_of_a_step_is_the_mean_over_its_tokens_however_it_is_cut(
    tmp_path, batch_size, token_budget, share_prefix
):
    events = []
    chosen = settings(batch_size=batch_size, steps=4, token_budget=token_budget, share_prefix=share_prefix)
    run(tmp_path, chosen, emit=events.append, heldout=[])
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert losses == pytest.approx(LOSSES[batch_size], rel=1e-5)


def test_what_is_learned_does_not_depend_on_the_cut_either(tmp_path):
    run(tmp_path / "whole", settings(token_budget=4096))
    run(tmp_path / "cut", settings(token_budget=20))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    # AdamW divides by the gradient's size, so a rounding error of a tiny gradient can move a weight visibly.
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-3, atol=2e-4)


def test_the_loss_falls_and_the_result_says_what_happened(tmp_path):
    events = []
    result, _ = run(tmp_path, settings(steps=30), emit=events.append)
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.step for event in steps] == list(range(1, 31))
    assert steps[-1].loss < 0.8 * steps[0].loss
    assert result.status == "finished"
    assert result.steps == 30
    assert result.train_loss == pytest.approx(sum(event.loss for event in steps) / 30)
    assert result.heldout_loss_before is not None
    of_steps = sum(event.seconds for event in steps)
    assert result.seconds > of_steps
    assert result.tokens_per_second == pytest.approx(sum(event.tokens for event in steps) / of_steps)
    assert result.examples_per_second == pytest.approx(30 * 4 / of_steps)
    assert result.peak_rss_bytes > 50_000_000
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.step, finished.train_loss, finished.heldout_loss) == (30, result.train_loss, result.heldout_loss)


def test_the_events_tell_the_story_in_order(tmp_path):
    events = []
    run(tmp_path, settings(steps=4, eval_every=2, checkpoint_every=3), emit=events.append)
    story = [(type(event).__name__, getattr(event, "step", None)) for event in events]
    assert story == [
        ("Started", None), ("Eval", 0), ("Step", 1), ("Step", 2), ("Eval", 2), ("Step", 3), ("Checkpoint", 3),
        ("Step", 4), ("Eval", 4), ("Checkpoint", 4), ("Finished", 4),
    ]  # fmt: skip
    started = events[0]
    assert (started.from_step, started.steps, started.device, started.dtype) == (0, 4, "cpu", "float32")
    seen = [event for event in events if isinstance(event, Step)]
    members = step_members(10, 4, 42, 4)
    for event, chosen in zip(seen, members, strict=True):
        assert event.tokens == sum(len(examples()[index].input_ids) for index in chosen)
        assert event.supervised_tokens == sum(examples()[index].supervised for index in chosen)
        assert event.learning_rate == learning_rate(event.step - 1, settings(steps=4))


def test_only_the_adapter_changes(tmp_path):
    _, model = run(tmp_path, heldout=[])
    fresh = attach_lora(tiny_model(), LORA, seed=42)
    before = dict(fresh.named_parameters())
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(trainable(fresh))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, settings(seed=seed, steps=4), heldout=[])
    assert_bit_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert any(not torch.equal(value, weights(tmp_path / "c")[name]) for name, value in weights(tmp_path / "a").items())


def test_early_stopping_keeps_the_best_adapter_and_says_why_it_stops(tmp_path):
    chosen = settings(steps=200, learning_rate=2e-2, eval_every=4, patience=2, scheduler="constant")
    events = []
    result, model = run(tmp_path, chosen, emit=events.append)
    evals = [event for event in events if isinstance(event, Eval)][1:]
    best = min(evals, key=lambda event: event.heldout_loss)
    assert result.status == "finished"
    assert result.steps == evals[-1].step < 200
    assert [event.best for event in evals[-2:]] == [False, False]
    assert best.step == evals[-3].step
    assert result.heldout_loss == best.heldout_loss
    assert LossModel(model).mean_loss(examples(4, seed=9), 200) == pytest.approx(best.heldout_loss, rel=1e-6)
    saved = load_file(tmp_path / "checkpoints" / "best" / "adapter_model.safetensors")
    assert_bit_equal(weights(tmp_path), saved)
    assert [event.code for event in events if isinstance(event, Warned)] == ["training.no_longer_better"]


def test_training_ends_when_everything_is_known_by_heart(tmp_path):
    chosen = settings(steps=300, learning_rate=2e-2, scheduler="constant", batch_size=3, stop_loss=3.0)
    events = []
    result, _ = run(tmp_path, chosen, emit=events.append, learned=examples(3), heldout=[])
    steps = [event for event in events if isinstance(event, Step)]
    assert result.status == "finished"
    assert steps[-1].loss < 3.0 < steps[-2].loss
    assert [event.code for event in events if isinstance(event, Warned)] == ["training.learned_by_heart"]
    assert (tmp_path / "adapter").is_dir()


def test_weights_that_are_no_numbers_stop_the_run_with_advice(tmp_path):
    model = attach_lora(tiny_model(), LORA, seed=1)
    next(model.get_base_model().parameters()).data[:] = float("nan")
    with pytest.raises(TrainingError) as caught:
        fit(model, Job(examples(), [], tmp_path, "tiny"), settings(), lambda _: None)
    assert caught.value.key == "training.not_a_number"
    assert "step 1" in caught.value.message("en")
    assert "learning_rate" in caught.value.fix("en")
    assert not (tmp_path / "adapter").exists()


def test_a_diverging_run_stops_with_advice_and_leaves_its_checkpoints(tmp_path):
    base = tiny_model(tied=False)
    with torch.no_grad():
        base.lm_head.weight.mul_(10)  # sure of itself, so that there is far to fall
        starts = [torch.tensor([row.input_ids[:6]]) for row in examples()]
        said = [base.generate(start, max_new_tokens=12, do_sample=False)[0].tolist() for start in starts]
    rows = [Example(tuple(ids), (False,) * 6 + (True,) * (len(ids) - 6), row) for row, ids in enumerate(said)]
    chosen = settings(steps=60, learning_rate=0.5, scheduler="constant", max_grad_norm=1e-3, warmup_steps=0)
    with pytest.raises(TrainingError) as caught:
        fit(attach_lora(base, LORA, seed=1), Job(rows, [], tmp_path, "tiny"), chosen, lambda _: None)
    assert caught.value.key == "training.diverged"
    assert "5.0e-01" in caught.value.message("en")
    assert Checkpoints(tmp_path / "checkpoints", "tiny").newest() is not None
    assert not (tmp_path / "adapter").exists()


def test_nothing_to_learn_is_said_before_the_first_step(tmp_path):
    rows = [Example((1, 2, 3), (False,) * 3, 1)]
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, learned=rows)
    assert caught.value.key == "training.nothing_to_learn"
    mixed = [*rows * 9, *examples(1)]
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, settings(batch_size=1, steps=10), learned=mixed, heldout=[])
    assert caught.value.key == "training.step_without_target"


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_adapter_loads_in_plain_peft_and_gives_the_same_logits(tmp_path, family):
    _, model = run(tmp_path, settings(steps=4), heldout=[], family=family)
    loaded = PeftModel.from_pretrained(tiny_model(family), tmp_path / "adapter").eval()
    ids = torch.tensor([examples()[0].input_ids])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits, rtol=0, atol=0)
        with model.disable_adapter():
            assert not torch.equal(loaded(ids).logits, model(ids).logits)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "tiny"
    assert config["peft_type"] == "LORA"
    assert config["inference_mode"] is True


def test_questions_are_asked_at_every_measurement_without_disturbing_the_run(tmp_path):
    asked = []

    def ask(model):
        asked.append(model.training)
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False)
        return (SampleAnswer(question="?", answer="!", passed=False),)

    events = []
    chosen = settings(steps=4, eval_every=2)
    run(tmp_path / "silent", chosen)
    model = attach_lora(tiny_model(), LORA, seed=chosen.seed)
    job = Job(examples(), examples(4, seed=9), tmp_path / "asked", "tiny", ask)
    fit(model, job, chosen, events.append)
    assert [event.step for event in events if isinstance(event, Sample)] == [0, 2, 4]
    assert asked == [False] * 3
    assert_bit_equal(weights(tmp_path / "silent"), weights(tmp_path / "asked"))


def test_a_family_without_a_fast_path_is_trained_the_plain_way_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("danlu.training.forward.PACKED_ARCHITECTURES", frozenset())
    events = []
    run(tmp_path, settings(steps=4, batch_size=4), emit=events.append, heldout=[])
    assert [event.code for event in events if isinstance(event, Warned)] == ["training.plain_path"]
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert losses == pytest.approx(LOSSES[4], rel=1e-5)


def test_a_fast_path_that_disagrees_is_given_up_with_a_warning(tmp_path, monkeypatch):
    right = LossModel.loss_sum
    monkeypatch.setattr(LossModel, "loss_sum", lambda self, batch: right(self, batch) * 1.01)
    events = []
    run(tmp_path, settings(steps=4, batch_size=4), emit=events.append, heldout=[])
    assert [event.code for event in events if isinstance(event, Warned)] == ["training.self_check_failed"]
    assert [event.loss for event in events if isinstance(event, Step)] == pytest.approx(LOSSES[4], rel=1e-5)


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_rate_rises_to_its_peak_and_falls_as_the_schedule_says(scheduler, warmup):
    chosen = settings(steps=20, warmup_steps=warmup, scheduler=scheduler, learning_rate=1.0)
    rates = [learning_rate(step, chosen) for step in range(20)]
    assert max(rates) == rates[warmup] == 1.0
    assert all(one < other for one, other in itertools.pairwise(rates[: warmup + 1]))
    after = rates[warmup:]
    assert all(0 < rate <= 1.0 for rate in after)
    if scheduler == "constant":
        assert set(after) == {1.0}
    else:
        assert all(one > other for one, other in itertools.pairwise(after))
        assert after[-1] < 0.1

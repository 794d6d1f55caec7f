"""Interrupted in any way, a run goes on from its newest checkpoint and ends with the same bits."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from danlu.errors import MachineError, TrainingError
from danlu.events import Checkpoint, Started, Step, Stopped, Warned
from danlu.training.adapter import attach_lora, load_adapter_weights
from danlu.training.checkpoint import Checkpoints, LoopState
from tests.tiny import tiny_model
from tests.training.fitting import LORA, assert_bit_equal, run, settings, weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of the standard settings, uninterrupted: its folder and its result."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)[0]


@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, stop_after):
    events = []
    stopped, _ = run(
        tmp_path / "parts",
        emit=events.append,
        stop=lambda: isinstance(events[-1], Step) and events[-1].step == stop_after,
    )
    if stopped.status == "finished":
        pytest.fail("the run did not stop")
    assert stopped.steps == stop_after
    assert isinstance(events[-1], Stopped)
    assert isinstance(events[-2], Checkpoint)
    assert not (tmp_path / "parts" / "adapter").exists()

    resumed, _ = run(tmp_path / "parts", resume=True)
    assert resumed.status == "finished"
    assert_bit_equal(weights(whole[0]), weights(tmp_path / "parts"))
    assert resumed.train_loss == whole[1].train_loss
    assert resumed.heldout_loss == whole[1].heldout_loss
    assert resumed.heldout_loss_before == whole[1].heldout_loss_before


def child(folder, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.fitting", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_run_killed_in_a_step_goes_on_to_the_same_bits(tmp_path, whole):
    worker = child(tmp_path / "killed", "wait", "5")
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.strip() == "5":
            worker.kill()
            break
    assert worker.wait() == -signal.SIGKILL
    worker.stdout.close()
    assert not (tmp_path / "killed" / "adapter").exists()

    events = []
    run(tmp_path / "killed", emit=events.append, resume=True)
    assert next(event.from_step for event in events if isinstance(event, Started)) == 4
    assert_bit_equal(weights(whole[0]), weights(tmp_path / "killed"))


def test_a_run_killed_while_writing_a_checkpoint_goes_on_from_the_one_before_to_the_same_bits(tmp_path, whole):
    worker = child(tmp_path / "killed", "half", "8")
    assert worker.wait(timeout=120) == -signal.SIGKILL
    worker.stdout.close()
    left = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert [name for name in left if not name.startswith(".")] == ["best", "step-000004", "step-000006"]
    assert [name for name in left if name.startswith(".step-000008.")], "the half-written one is not under its name"

    events = []
    run(tmp_path / "killed", emit=events.append, resume=True)
    assert next(event.from_step for event in events if isinstance(event, Started)) == 6
    assert_bit_equal(weights(whole[0]), weights(tmp_path / "killed"))
    left = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert not [name for name in left if name.startswith(".")]


def test_a_resumed_run_with_dropout_gives_the_same_bits_too(tmp_path):
    dropping = settings(steps=6, lora=LORA.model_copy(update={"lora_dropout": 0.3}))
    events = []
    run(tmp_path / "whole", dropping, emit=events.append)
    assert not [event for event in events if isinstance(event, Warned)], "dropout is no reason to take the plain path"
    seen = []
    run(tmp_path / "parts", dropping, emit=seen.append, stop=lambda: isinstance(seen[-1], Step) and seen[-1].step == 3)
    run(tmp_path / "parts", dropping, resume=True)
    assert_bit_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_resuming_without_a_checkpoint_begins_at_the_beginning(tmp_path, whole):
    run(tmp_path, resume=True)
    assert_bit_equal(weights(whole[0]), weights(tmp_path))


def test_a_run_killed_after_its_last_checkpoint_only_has_to_write_its_adapter(tmp_path):
    run(tmp_path, settings(steps=4))
    whole = weights(tmp_path)
    (tmp_path / "adapter").rename(tmp_path / "gone")
    events = []
    run(tmp_path, settings(steps=4), emit=events.append, resume=True)
    assert not [event for event in events if isinstance(event, Step)]
    assert_bit_equal(whole, weights(tmp_path))


def test_the_newest_two_checkpoints_and_the_best_adapter_are_kept(whole):
    folder = whole[0] / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best", "step-000006", "step-000008"]
    assert sorted(path.name for path in (folder / "step-000008").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


def test_a_run_that_had_stopped_early_does_not_train_on_when_resumed(tmp_path):
    chosen = settings(steps=200, learning_rate=2e-2, eval_every=4, patience=2, scheduler="constant")
    first, _ = run(tmp_path, chosen)
    (tmp_path / "adapter").rename(tmp_path / "gone")
    again, _ = run(tmp_path, chosen, resume=True)
    assert again.steps == first.steps
    assert_bit_equal(load_file(tmp_path / "gone" / "adapter_model.safetensors"), weights(tmp_path))


def test_a_full_disk_at_a_checkpoint_is_said_and_the_one_before_is_intact(tmp_path, whole):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def emit(event):
        if isinstance(event, Checkpoint) and event.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))

    try:
        with pytest.raises(MachineError):
            run(tmp_path / "full", emit=emit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    names = sorted(path.name for path in (tmp_path / "full" / "checkpoints").iterdir())
    assert names == ["best", "step-000002", "step-000004"]
    run(tmp_path / "full", resume=True)
    assert_bit_equal(weights(whole[0]), weights(tmp_path / "full"))


@pytest.mark.parametrize("file", ["state.json", "adapter_model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_used(tmp_path, file, damage):
    run(tmp_path, settings(steps=4))
    whole = weights(tmp_path)
    newest = tmp_path / "checkpoints" / "step-000004"
    if damage == "cut":
        (newest / file).write_bytes((newest / file).read_bytes()[:20])
    else:
        (newest / file).unlink()
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, settings(steps=4), resume=True)
    assert caught.value.key == "training.checkpoint_damaged"
    assert caught.value.where == str(newest)
    newest.rename(tmp_path / "damaged")
    run(tmp_path, settings(steps=4), resume=True)
    assert_bit_equal(whole, weights(tmp_path))


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    run(tmp_path, settings(steps=2), heldout=[])
    for other in (LORA.model_copy(update={"r": 8}), LORA.model_copy(update={"target_modules": ("q_proj",)})):
        with pytest.raises(TrainingError) as caught:
            load_adapter_weights(attach_lora(tiny_model(), other, seed=1), tmp_path / "adapter")
        assert caught.value.key == "training.adapter_mismatch"


def test_the_state_of_the_loop_is_kept_in_plain_json(tmp_path):
    run(tmp_path, settings(steps=2))
    state = LoopState.model_validate_json(
        (tmp_path / "checkpoints" / "step-000002" / "state.json").read_text(encoding="utf-8")
    )
    assert (state.step, state.examples) == (2, 8)
    assert Checkpoints(tmp_path / "checkpoints", "tiny").newest().name == "step-000002"
    assert Checkpoints(tmp_path / "none", "tiny").newest() is None

"""Memory that runs out makes pieces smaller, not results different; a person is heard within a measurement."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from danlu.data.examples import Example
from danlu.errors import TrainingError
from danlu.events import Eval, Finished, Sample, SampleAnswer, Step, Stopped, Warned
from danlu.training.forward import LossModel
from danlu.training.guarding import Room, is_out_of_memory
from danlu.training.loop import Job, fit
from danlu.training.objectives import TokenMean
from danlu.training.trained import attach
from tests.tiny import tiny_model
from tests.training.fitting import assert_bit_equal, examples, run, settings, weights

LONG = 400
ROWS = 64


def long_examples(count: int, length: int = LONG) -> list[Example]:
    """Long sequences, so that memory goes into what is computed."""
    rng = random.Random(3)
    learn = (False, *[True] * (length - 1))
    return [Example(tuple(rng.randrange(3, 380) for _ in range(length)), learn, row) for row in range(count)]


def main(folder: str, room_mib: str, length: str) -> None:
    """Train in an address space that has only so much room left, and print what happened."""
    rows = long_examples(ROWS, int(length))
    chosen = settings(batch_size=ROWS, steps=2, token_budget=1 << 20, warmup_steps=0, share_prefix=False)
    # Threads and libraries take their share of the address space once.
    run(Path(folder) / "warm", settings(steps=1), learned=long_examples(4, 40), heldout=[])
    limit = psutil.Process().memory_info().vms + int(room_mib) * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    events: list[object] = []
    try:
        run(Path(folder) / "tight", chosen, emit=events.append, learned=rows, heldout=rows[:8])
    except TrainingError as error:
        print(json.dumps({"error": error.key, "message": error.message("en")}))
        return
    warnings = [event.code for event in events if isinstance(event, Warned)]
    print(json.dumps({"warnings": warnings, "losses": [event.loss for event in events if isinstance(event, Step)]}))


def in_little_memory(folder: Path, room_mib: int, length: int = LONG) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.training.test_guarding", str(folder), str(room_mib), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_memory_that_runs_out_makes_the_pieces_smaller_and_changes_no_result(tmp_path):
    told = in_little_memory(tmp_path, 240)  # 100 suffice for a few examples; all at once take more than 460
    assert set(told["warnings"]) == {"training.smaller_pieces"}
    events = []
    chosen = settings(batch_size=ROWS, steps=2, token_budget=LONG, warmup_steps=0, share_prefix=False)
    rows = long_examples(ROWS)
    run(tmp_path / "roomy", chosen, emit=events.append, learned=rows, heldout=rows[:8])
    assert told["losses"] == pytest.approx([event.loss for event in events if isinstance(event, Step)], rel=1e-5)
    tight, roomy = weights(tmp_path / "tight"), weights(tmp_path / "roomy")
    for name in roomy:
        torch.testing.assert_close(tight[name], roomy[name], rtol=1e-3, atol=2e-4)


def test_where_not_one_example_fits_the_error_says_what_would_help(tmp_path):
    told = in_little_memory(tmp_path, 25, 5 * LONG)
    assert told["error"] == "training.out_of_memory"
    assert "danlu runs resume" in str(told["message"])


def test_the_step_is_done_again_with_the_same_gradients_whatever_the_broken_one_left(tmp_path):
    """Memory runs out in the last piece of a step, when the others have left their gradients."""

    class Greedy(TokenMean):
        failed = 0

        def loss(self, losses, piece, given):
            if len(piece.examples) > 2:
                self.failed += 1
                torch.empty(1 << 60)  # a real allocation that really fails
            return super().loss(losses, piece, given)

    rows = [*long_examples(2, 60), *examples(8)]
    chosen = settings(batch_size=10, steps=3, token_budget=64, share_prefix=False)
    kept: dict[str, list[float]] = {}
    for name, objective in (("greedy", Greedy()), ("plain", TokenMean())):
        events = []
        model = attach(tiny_model(), chosen)
        fit(model, Job(rows, [], tmp_path / name, "tiny", objective=objective), chosen, events.append)
        kept[name] = [event.grad_norm for event in events if isinstance(event, Step)]
        assert [event.code for event in events if isinstance(event, Warned)] == (
            ["training.smaller_pieces"] * objective.failed if isinstance(objective, Greedy) else []
        )
        assert not isinstance(objective, Greedy) or objective.failed
    assert kept["greedy"] == pytest.approx(kept["plain"], rel=1e-4)


def test_smaller_budgets_end_with_one_example_at_a_time():
    model = attach(tiny_model(), settings())
    warned: list[object] = []
    room, losses, rows = Room(10_000, warned.append), LossModel(model), long_examples(4, 50)
    sizes = []
    while not sizes or sizes[-1] < 4:
        room.shrink(TokenMean(), losses, rows, "step 1")
        sizes.append(len(TokenMean().pieces(losses, rows, room.tokens)))
    with pytest.raises(TrainingError, match="one at a time"):
        room.shrink(TokenMean(), losses, rows, "step 1")
    assert sizes[-1] == 4
    assert sizes == sorted(set(sizes))
    assert len(warned) == len(sizes)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


def test_memory_that_another_program_takes_is_said_once():
    warned: list[Warned] = []
    room = Room(100, warned.append)
    for free in (10**10, 10**8, 10**7):
        room.look(free)
    assert [event.code for event in warned] == ["training.memory_short"]
    assert "100" in warned[0].message


class StopIn:
    """Asks to stop once so many questions were put to it after an event of a kind."""

    def __init__(self, step: int, questions: int) -> None:
        self.events: list[object] = []
        self._step, self._questions = step, questions

    def __call__(self) -> bool:
        done = [event.step for event in self.events if isinstance(event, Step)]
        if (done[-1] if done else 0) == self._step and self._questions:
            self._questions -= 1
            return self._questions == 0
        return self._questions == 0


@pytest.mark.parametrize(("step", "questions"), [(0, 2), (4, 2), (8, 2), (8, 3)])
def test_a_run_stopped_within_a_measurement_goes_on_to_the_same_bits(tmp_path, step, questions):
    chosen = settings(token_budget=30)
    whole, _ = run(tmp_path / "whole", chosen)
    stop = StopIn(step, questions)
    stopped, _ = run(tmp_path / "parts", chosen, emit=stop.events.append, stop=stop)
    assert stopped.status == "stopped"
    assert stopped.steps == step
    assert isinstance(stop.events[-1], Stopped)
    measured = [event.step for event in stop.events if isinstance(event, Eval)]
    assert step not in measured
    events: list[object] = []
    resumed, _ = run(tmp_path / "parts", chosen, emit=events.append, resume=True)
    assert resumed.status == "finished"
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, Eval)] == [n for n in (0, 4, 8) if n >= step]
    assert_bit_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert (resumed.heldout_loss, resumed.train_loss) == (whole.heldout_loss, whole.train_loss)
    assert resumed.heldout_loss_before == whole.heldout_loss_before


def test_a_run_is_heard_between_the_tokens_of_an_answer(tmp_path):
    asked = []

    def ask(model):
        for _ in range(100):
            asked.append(model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape)
        return (SampleAnswer(question="?", answer="!"),)

    events: list[object] = []
    chosen = settings()
    job = Job(examples(), [], tmp_path, "tiny", ask)
    result = fit(attach(tiny_model(), chosen), job, chosen, events.append, lambda: len(asked) == 3)
    assert (result.status, result.steps, len(asked)) == ("stopped", 0, 3)
    assert not any(isinstance(event, Sample) for event in events)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The training loop. It reads from top to bottom: set up, resume, step, measure, save, finish.

The loop decides nothing (see ``TrainSettings``) and knows nothing of recipes, commands or servers: it is given a
model, examples and a folder, and emits events.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import psutil
import torch
from peft import PeftModel

from danlu.data.batches import mixed_members
from danlu.data.examples import Example
from danlu.data.table import supervised_of, texts_of
from danlu.errors import TrainingError
from danlu.events import Checkpoint, Emit, Eval, Finished, Sample, SampleAnswer, Started, Step, Stopped, Warned
from danlu.files import format_bytes
from danlu.hardware import available_memory
from danlu.i18n import t
from danlu.training.checkpoint import Checkpoints, LoopState
from danlu.training.forward import LossModel
from danlu.training.guarding import (
    Interrupted,
    Room,
    free_what_was_left,
    interruptible,
    is_out_of_memory,
    memory_errors,
)
from danlu.training.memory import peak_rss
from danlu.training.objectives import Objective, TokenMean
from danlu.training.preferences import Figures, PreferenceObjective
from danlu.training.ranks.base import SEED_STRIDE, Ranks
from danlu.training.schedule import learning_rate
from danlu.training.settings import TrainSettings
from danlu.training.trained import TrainedModel, adapter_off, base_of, finished_folder, trainable

# A loss of twice the first one together with a gradient of more than a hundred times the clip is no noise any more
# (the signs of divergence that Axolotl's guide lists).
_DIVERGED_LOSS: Final = 2.0
_DIVERGED_GRAD: Final = 100.0
_DIVERGED_STEPS: Final = 5

Ask = Callable[[TrainedModel], tuple[SampleAnswer, ...]]


@dataclass(frozen=True)
class FitResult:
    """What the loop did.

    Attributes:
        status: ``finished``, or ``stopped`` by a person.
        steps: optimizer steps done.
        train_loss: mean loss over all steps, in nats a token.
        heldout_loss_before: held-out loss of the untouched base, or None without held-out examples.
        heldout_loss: lowest held-out loss since, that of the adapter which is kept.
        examples_per_second: examples over the steps' time, measurements and checkpoints excluded.
        tokens_per_second: real tokens likewise.
        seconds: time of the steps, measurements, answers and checkpoints.
        peak_rss_bytes: largest resident memory so far, of all processes together.
    """

    status: Literal["finished", "stopped"]
    steps: int
    train_loss: float
    heldout_loss_before: float | None
    heldout_loss: float | None
    examples_per_second: float
    tokens_per_second: float
    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Job:
    """What the loop works on.

    Attributes:
        examples: what is learned.
        heldout: what is measured on; may be empty.
        folder: the run's folder; gets ``checkpoints/`` and ``adapter/`` or ``weights/``.
        base_model: name of the base model, written into the adapter.
        ask: asks the model the probe questions; None asks nothing.
        objective: what is learned from the examples.
        continued: the model comes with an adapter that has learned before; what is compared with stays the base.
    """

    examples: Sequence[Example]
    heldout: Sequence[Example]
    folder: Path
    base_model: str
    ask: Ask | None = None
    objective: Objective = field(default_factory=TokenMean)
    continued: bool = False

    @property
    def rows(self) -> int:
        """Examples of a pass: the answers where texts are learned beside them, else all."""
        return int((~texts_of(self.examples)).sum()) or len(self.examples)


def fit(
    model: TrainedModel,
    job: Job,
    settings: TrainSettings,
    emit: Emit,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    resume: bool = False,
    ranks: Ranks | None = None,
) -> FitResult:
    """Train ``model`` and leave what was trained in ``job.folder / finished_folder(method)``.

    Args:
        model: a model made ready by ``attach``; where one process trains, on return it is as it was at its best.
        job: examples and folders.
        settings: every value decided.
        emit: receives each event.
        should_stop: asked after each step, and, unless weights are spread among processes, between the pieces of a
            measurement; True saves a checkpoint and returns.
        resume: go on from the newest checkpoint, if there is one, whatever layout of processes wrote it.
        ranks: the processes that train together, each of which calls this; None is this one alone.

    Raises:
        TrainingError: nothing to learn, a loss that is no number, divergence, or too little memory for one example.
        MachineError: the disk is full; earlier checkpoints are intact.
    """
    if not supervised_of(job.examples).any():
        raise TrainingError("training.nothing_to_learn")
    ranks = ranks or Ranks()
    checkpoints = Checkpoints(job.folder / "checkpoints", job.base_model, ranks)
    newest = ranks.agree(checkpoints.newest() if resume else None)
    state = checkpoints.restore(newest, model) if newest else LoopState()
    optimizer = ranks.begin(model, settings)
    if newest:
        checkpoints.restore_optimizer(newest, model, optimizer)
    losses = LossModel(
        model,
        share_prefix=settings.share_prefix,
        smoothing=settings.label_smoothing_factor,
        noise=settings.neftune_noise_alpha,
    )
    model.train()
    if not losses.packed:
        emit(Warned(code="training.plain_path", message=t("training.plain_path")))
    elif not ranks.compute(_packed_agrees, losses, job.examples):
        emit(Warned(code="training.self_check_failed", message=t("training.self_check_failed")))
    dtype = str(base_of(model).dtype).removeprefix("torch.")
    emit(Started(from_step=state.step, steps=settings.steps, device=str(model.device), dtype=dtype))
    room = Room(state.token_budget or settings.token_budget, emit)
    asked, should_stop = should_stop, lambda: ranks.agree(asked())
    try:
        with interruptible(model, should_stop) if ranks.breakable else nullcontext():
            _measure_before(losses, ranks, job, room, state, emit)
    except Interrupted:
        emit(Stopped(step=state.step))  # nothing is lost: this is measured again, with the same result
        return _result("stopped", state, ranks)

    members = mixed_members(job.examples, settings.batch_size, settings.texts_per_step, settings.seed, settings.steps)
    per_epoch = _steps_of_a_pass(job.rows, settings)
    wild = 0
    gc.collect()
    gc.disable()
    try:
        # A run that was killed between its last checkpoint and its end has nothing left to do.
        over = state.step > 0 and (_learned_by_heart(state, settings, per_epoch) or _exhausted(state, settings))
        while state.due or (state.step < settings.steps and not over):
            if not state.due:
                examples = [job.examples[index] for index in members[state.step]]
                room.look(available_memory())
                event = _step(losses, ranks, job, examples, state, settings, room)
                emit(event)
                wild = wild + 1 if _is_wild(event, state, settings) else 0
                if wild >= _DIVERGED_STEPS:
                    raise TrainingError("training.diverged", step=event.step, rate=f"{settings.learning_rate:.1e}")
            start = time.perf_counter()
            learned = _learned_by_heart(state, settings, per_epoch)
            last = state.step == settings.steps or learned
            if last or state.step % settings.eval_every == 0:
                _measure(losses, ranks, job, room, checkpoints, state, emit, should_stop)
            exhausted = _exhausted(state, settings)
            stop = state.due or should_stop()
            state.aside_seconds += time.perf_counter() - start
            if stop or last or exhausted or state.step % settings.checkpoint_every == 0:
                start, state.token_budget = time.perf_counter(), room.tokens
                path = checkpoints.save(model, optimizer, state)
                state.aside_seconds += time.perf_counter() - start
                emit(Checkpoint(step=state.step, path=str(path), best=state.bad_evals == 0))
            if state.due or (stop and not last):
                emit(Stopped(step=state.step))
                return _result("stopped", state, ranks)
            if learned or exhausted:
                code = "training.learned_by_heart" if learned else "training.no_longer_better"
                emit(Warned(code=code, message=t(code, step=state.step)))
                break
    finally:
        gc.enable()

    checkpoints.save_finished(model, job.folder / finished_folder(settings.method))
    if ranks.size == 1:
        checkpoints.restore_best(model)
    result = _result("finished", state, ranks)
    emit(
        Finished(
            step=state.step,
            train_loss=result.train_loss,
            heldout_loss=result.heldout_loss,
            seconds=result.seconds,
            peak_rss_bytes=result.peak_rss_bytes,
        )
    )
    return result


def _packed_agrees(losses: LossModel, examples: Sequence[Example]) -> bool:
    with memory_errors(t("training.at_step", step=0)):
        return losses.packed_agrees(sorted(examples, key=lambda item: len(item.input_ids))[:2])


def _step(
    losses: LossModel,
    ranks: Ranks,
    job: Job,
    examples: Sequence[Example],
    state: LoopState,
    settings: TrainSettings,
    room: Room,
) -> Step:
    """Do one optimizer step, whose loss and gradient are those of all its examples, however they are cut."""
    start = time.perf_counter()
    supervised = sum(example.supervised for example in examples)
    if supervised == 0:
        raise TrainingError("training.step_without_target", step=state.step + 1)
    rate = learning_rate(state.step, settings)
    where = t("training.at_step", step=state.step + 1)
    # Dropout of a resumed run equals that of an uninterrupted one.
    seed = settings.seed + state.step + ranks.rank * SEED_STRIDE
    while (loss := _backward(losses, ranks, job.objective, examples, room.tokens, seed, where)) is None:
        free_what_was_left([*trainable(losses.model).values()])
        room.shrink(job.objective, losses, examples, where)
    with memory_errors(where):  # half an update cannot be done again: the newest checkpoint is where to go on
        norm = ranks.update(rate, settings.max_grad_norm) if math.isfinite(loss) else math.nan
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError("training.not_a_number", step=state.step + 1, rate=f"{settings.learning_rate:.1e}")
    seconds = time.perf_counter() - start
    said = _said(job.objective, ranks)
    tokens = sum(len(example.input_ids) for example in examples)
    state.step += 1
    state.loss_sum += loss
    state.tokens += tokens
    state.examples += len(examples)
    state.seconds += seconds
    state.first_loss = loss if state.first_loss is None else state.first_loss
    state.epoch_losses = [*state.epoch_losses, loss][-_steps_of_a_pass(job.rows, settings) :]
    return Step(
        step=state.step,
        epoch=round(state.step * settings.batch_size / job.rows, 3),
        loss=loss,
        learning_rate=rate,
        grad_norm=norm,
        tokens=tokens,
        supervised_tokens=supervised,
        seconds=seconds,
        preferred=said and said.preferred,
        margin=said and said.margin,
    )


def _backward(
    losses: LossModel,
    ranks: Ranks,
    objective: Objective,
    examples: Sequence[Example],
    token_budget: int,
    seed: int,
    where: str,
) -> float | None:
    """Return the loss of a step and leave its gradients; None, with some gradients, when memory ran out."""
    torch.manual_seed(seed)
    mine, loss = ranks.share(examples), 0.0
    try:
        spare = None
        if not ranks.breakable:  # processes that must pass through the model together need something to pass with
            spare = objective.pieces(losses, [min(examples, key=lambda item: len(item.input_ids))], token_budget)[0][1]
        pieces = [piece for _, piece in objective.pieces(losses, mine, token_budget)] if mine else []
        for piece, counts in ranks.rounds(pieces, spare):
            piece_loss = ranks.compute(objective.loss, losses, piece, examples)
            ranks.backward(piece_loss if counts else piece_loss * 0.0)
            if counts:
                loss += piece_loss.item()
            elif isinstance(objective, PreferenceObjective):
                objective.forget_last()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if not ranks.breakable:
            raise TrainingError("training.out_of_memory", where, free=format_bytes(available_memory())) from None
        return ranks.combine(None)
    return ranks.combine(loss)


def _heldout_loss(losses: LossModel, ranks: Ranks, job: Job, room: Room, step: int) -> float:
    """Measure the held-out examples, in smaller pieces when memory runs out."""
    where = t("training.at_step", step=step)
    while True:
        try:
            return ranks.agree(ranks.compute(job.objective.heldout_loss, losses, job.heldout, room.tokens))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if ranks.size > 1:  # the others have gone on
                raise TrainingError("training.out_of_memory", where, free=format_bytes(available_memory())) from None
        losses.model.train()
        free_what_was_left(())
        room.shrink(job.objective, losses, job.heldout, where)


def _measure_before(losses: LossModel, ranks: Ranks, job: Job, room: Room, state: LoopState, emit: Emit) -> None:
    """Measure and ask before the first step."""
    start = time.perf_counter()
    if job.heldout and state.heldout_before is None:
        started = _heldout_loss(losses, ranks, job, room, 0)
        said = _said(job.objective)
        emit(Eval(step=0, heldout_loss=started, best=False, preferred=said and said.preferred))
        state.heldout_before = started
        if job.continued:  # what the proof compares with is the base without the adapter that the run goes on from
            assert isinstance(losses.model, PeftModel)
            with adapter_off(losses.model):
                state.heldout_before = _heldout_loss(losses, ranks, job, room, 0)
    if job.ask and state.step == 0:
        emit(Sample(step=0, answers=_ask(losses, ranks, job.ask)))
    state.aside_seconds += time.perf_counter() - start


def _said(objective: Objective, ranks: Ranks | None = None) -> Figures | None:
    """Return what a comparison of answers has said since it was last asked.

    Args:
        objective: what is learned.
        ranks: the processes that each computed a share; None where each has computed all.
    """
    if not isinstance(objective, PreferenceObjective):
        return None
    return objective.figures() if ranks is None else objective.figures(ranks.collect)


def _measure(
    losses: LossModel,
    ranks: Ranks,
    job: Job,
    room: Room,
    checkpoints: Checkpoints,
    state: LoopState,
    emit: Emit,
    should_stop: Callable[[], bool],
) -> None:
    """Measure held-out loss, keep the best adapter, ask the probes; ``state.due`` says that it was interrupted."""
    state.due = bool(job.heldout)
    try:
        with interruptible(losses.model, should_stop) if ranks.breakable else nullcontext():
            if job.heldout:
                loss = _heldout_loss(losses, ranks, job, room, state.step)
                best = state.best_loss is None or loss < state.best_loss
                state.bad_evals = 0 if best else state.bad_evals + 1
                if best:
                    state.best_loss = loss
                    checkpoints.save_best(losses.model)
                state.due = False
                said = _said(job.objective)
                emit(Eval(step=state.step, heldout_loss=loss, best=best, preferred=said and said.preferred))
            if job.ask:
                emit(Sample(step=state.step, answers=_ask(losses, ranks, job.ask)))
    except Interrupted:
        pass  # what is still due is made up for by the resumed run; answers are for the eye alone
    gc.collect()  # the loop itself collects nothing, and generating leaves cycles behind


def _ask(losses: LossModel, ranks: Ranks, ask: Ask) -> tuple[SampleAnswer, ...]:
    losses.model.eval()
    with memory_errors(t("training.at_answers")):
        answers = ranks.compute(ask, losses.model)
    losses.model.train()
    return answers


def _is_wild(event: Step, state: LoopState, settings: TrainSettings) -> bool:
    first = state.first_loss or event.loss
    return event.loss > _DIVERGED_LOSS * first and event.grad_norm > _DIVERGED_GRAD * settings.max_grad_norm


def _exhausted(state: LoopState, settings: TrainSettings) -> bool:
    return settings.patience is not None and state.bad_evals >= settings.patience


def _steps_of_a_pass(rows: int, settings: TrainSettings) -> int:
    """Return after how many steps every row has been seen: what is judged learned by heart must have been."""
    return math.ceil(rows / settings.batch_size)


def _learned_by_heart(state: LoopState, settings: TrainSettings, per_epoch: int) -> bool:
    if settings.stop_loss is None or len(state.epoch_losses) < per_epoch:
        return False
    return sum(state.epoch_losses) / per_epoch < settings.stop_loss


def _result(status: Literal["finished", "stopped"], state: LoopState, ranks: Ranks) -> FitResult:
    return FitResult(
        status=status,
        steps=state.step,
        train_loss=state.loss_sum / max(state.step, 1),
        heldout_loss_before=state.heldout_before,
        heldout_loss=state.best_loss,
        examples_per_second=state.examples / max(state.seconds, 1e-9),
        tokens_per_second=state.tokens / max(state.seconds, 1e-9),
        seconds=state.seconds + state.aside_seconds,
        peak_rss_bytes=sum(ranks.collect([peak_rss(psutil.Process())])),
    )

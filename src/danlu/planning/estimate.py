"""Predicts a run's time and memory from one optimizer step done for real and thrown away."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil
import torch

from danlu.data.batches import mixed_members
from danlu.data.examples import Example
from danlu.planning.plan import Prediction
from danlu.training.forward import LossModel
from danlu.training.memory import peak_rss
from danlu.training.settings import TrainSettings
from danlu.training.trained import TrainedModel, trainable

# The step that is measured runs on warm caches; events, clipping and the optimizer come on top (own allowance).
_OVERHEAD = 1.05


def predict(
    model: TrainedModel, examples: Sequence[Example], heldout: Sequence[Example], settings: TrainSettings
) -> Prediction:
    """Run the largest piece of the run forward and backward, and scale.

    A pass over the shortest example warms up; the largest piece takes the memory that the run will need and is timed.
    Gradients are thrown away, so the run that follows is not changed.

    Args:
        model: the model, ready to be trained.
        examples: the examples that will be learned.
        heldout: the examples that will be measured on.
        settings: the decided settings.
    """
    losses = LossModel(model, share_prefix=settings.share_prefix)
    members = mixed_members(examples, settings.batch_size, settings.texts_per_step, settings.seed, settings.steps)
    pieces = [losses.step_losses([examples[i] for i in step], settings.token_budget) for step in members]
    costs = [sum(tokens for tokens, _ in step) for step in pieces]
    tokens, largest = max((piece for step in pieces for piece in step), key=lambda piece: piece[0])
    model.train()
    seconds = 0.0
    shortest = min(examples, key=lambda item: (item.supervised == 0, len(item.input_ids)))
    for piece in (losses.step_losses([shortest], settings.token_budget)[0][1], largest):
        start = time.perf_counter()
        losses.piece_loss(piece).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
    rate = tokens / seconds
    loop = sum(costs) / rate * _OVERHEAD
    # A measurement on held-out examples is a forward pass: about a third of a forward and backward pass.
    rounds = settings.steps // settings.eval_every
    loop += rounds * sum(len(example.input_ids) for example in heldout) / rate / 3
    # The optimizer keeps two values for each trained one, and the gradient is a third.
    state = 3 * sum(parameter.numel() * parameter.element_size() for parameter in trainable(model).values())
    torch.manual_seed(settings.seed)
    return Prediction(
        predicted_seconds=loop,
        predicted_peak_rss_bytes=peak_rss(psutil.Process()) + state,
        measured_tokens_per_second=rate,
    )

"""From examples to batches: which examples make an optimizer step, and how they lie in memory.

Which examples belong to a step is fixed by the seed alone. How a step is cut into micro-batches (by a budget of
tokens) changes neither the loss nor the gradient, only the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from danlu.data.examples import Example, unpacked
from danlu.data.layout import Layout, common_prefix


@dataclass(frozen=True)
class MicroBatch:
    """Some examples of an optimizer step as one packed sequence of T tokens, S of them to be predicted.

    Attributes:
        input_ids: int64, shape [1, T].
        layout: prefix and documents of the sequence.
        rows: packed positions whose hidden state predicts a learned token, int64, shape [S].
        targets: the learned tokens, int64, shape [S].
        owners: which of the packed examples, in the order given to ``pack``, each belongs to, int64, shape [S].
        tokens: real tokens of the examples, counted as if nothing were shared.
    """

    input_ids: torch.Tensor
    layout: Layout
    rows: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    tokens: int


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Return the order of the examples in an epoch; depends on nothing but its arguments."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    return order


def step_members(count: int, batch_size: int, seed: int, steps: int) -> list[list[int]]:
    """Return the indices of the examples of each optimizer step.

    Epochs follow each other without a break: a step at the seam takes the last examples of one epoch and the first
    of the next, so that every step has ``batch_size`` examples and none is left out.

    Args:
        count: number of examples.
        batch_size: examples of one step.
        seed: seed of the order.
        steps: number of steps.
    """
    members: list[list[int]] = []
    queue: list[int] = []
    epoch = 0
    while len(members) < steps:
        while len(queue) < batch_size:
            queue += epoch_order(count, seed, epoch)
            epoch += 1
        members.append(queue[:batch_size])
        queue = queue[batch_size:]
    return members


def micro_batches(examples: Sequence[Example], token_budget: int, *, share_prefix: bool = True) -> list[MicroBatch]:
    """Cut the examples of one step into micro-batches of at most ``token_budget`` tokens.

    An example longer than the budget makes a micro-batch of its own. Examples are taken by length, so that those of
    like length are attended together. The texts of a packed example are taken one by one.

    Args:
        examples: the examples of the step.
        token_budget: most packed tokens of one micro-batch.
        share_prefix: compute what the examples begin with only once.
    """
    groups: list[list[Example]] = []
    filled = 0
    for example in sorted(unpacked(examples), key=lambda item: len(item.input_ids)):
        length = len(example.input_ids)
        if groups and filled + length <= token_budget:
            groups[-1].append(example)
            filled += length
        else:
            groups.append([example])
            filled = length
    return [pack(group, share_prefix=share_prefix) for group in groups]


def pack(examples: Sequence[Example], *, share_prefix: bool = True) -> MicroBatch:
    """Lay examples, each a single text, end to end, with their common beginning once at the front."""
    prefix = 0
    if share_prefix and len(examples) > 1:
        prefix = min(common_prefix([example.input_ids for example in examples]), *(e.shareable for e in examples))
    ids = list(examples[0].input_ids[:prefix])
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    lengths: list[int] = []
    for number, example in enumerate(examples):
        offset = len(ids) - prefix
        ids += example.input_ids[prefix:]
        lengths.append(len(example.input_ids) - prefix)
        for position, learned in enumerate(example.learn):
            if learned and position:
                rows.append(offset + position - 1)
                targets.append(example.input_ids[position])
                owners.append(number)
    return MicroBatch(
        input_ids=torch.tensor([ids]),
        layout=Layout(prefix, tuple(lengths)),
        rows=torch.tensor(rows, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        owners=torch.tensor(owners, dtype=torch.int64),
        tokens=sum(len(example.input_ids) for example in examples),
    )

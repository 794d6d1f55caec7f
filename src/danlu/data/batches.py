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
from danlu.data.layout import Layout
from danlu.data.prefix_tree import PrefixTree, common_prefix, worth_sharing
from danlu.data.table import texts_of


@dataclass(frozen=True)
class MicroBatch:
    """Some examples of an optimizer step as one packed sequence of T tokens, S of them to be predicted.

    Attributes:
        input_ids: int64, shape [1, T].
        layout: the segments of the sequence.
        rows: packed positions whose hidden state predicts a learned token, int64, shape [S].
        targets: the learned tokens, int64, shape [S].
        owners: which of the packed examples, in the order given to ``pack``, each belongs to, int64, shape [S].
        tokens: real tokens of the examples, counted as if nothing were shared.
        examples: the packed examples, in the order that ``owners`` counts in.
    """

    input_ids: torch.Tensor
    layout: Layout
    rows: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    tokens: int
    examples: tuple[Example, ...]


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


def mixed_members(
    examples: Sequence[Example], batch_size: int, texts_per_step: int, seed: int, steps: int
) -> list[list[int]]:
    """Return the same where plain texts are learned beside answers: so many of each in every step.

    Answers and texts are gone through each in an order and a pace of their own, so that neither kind is missing in a
    step, however many there are.

    Args:
        examples: answers and texts.
        batch_size: answers of one step; all examples where no texts are learned beside.
        texts_per_step: texts of one step; 0 takes the examples as they come.
        seed: seed of both orders.
        steps: number of steps.
    """
    if not texts_per_step:
        return step_members(len(examples), batch_size, seed, steps)
    are_texts = texts_of(examples)
    answers, texts = np.flatnonzero(~are_texts).tolist(), np.flatnonzero(are_texts).tolist()
    pairs = zip(
        step_members(len(answers), batch_size, seed, steps),
        step_members(len(texts), texts_per_step, seed, steps),
        strict=True,
    )
    return [[*(answers[i] for i in some), *(texts[i] for i in others)] for some, others in pairs]


def micro_batches(examples: Sequence[Example], token_budget: int, *, share_prefix: bool = True) -> list[MicroBatch]:
    """Cut the examples of one step into micro-batches of at most ``token_budget`` packed tokens.

    An example longer than the budget makes a micro-batch of its own. Examples that begin alike come together, the
    others by length, so that those of like length are attended together. The texts of a packed example are taken one
    by one.

    Args:
        examples: the examples of the step.
        token_budget: most packed tokens of one micro-batch.
        share_prefix: compute what examples begin with only once.
    """
    single = unpacked(examples)
    common = common_beginning(single) if share_prefix else ()
    ordered = _in_order(single, common, share_prefix=share_prefix)
    return pack_together([(example,) for example in ordered], token_budget, common, share_prefix=share_prefix)


def pack_together(
    units: Sequence[Sequence[Example]], token_budget: int, common: tuple[int, ...] = (), *, share_prefix: bool = True
) -> list[MicroBatch]:
    """Put texts into micro-batches of at most ``token_budget`` packed tokens, in the order given.

    Args:
        units: texts that must not be torn apart, such as the two answers of a pair; each at least one.
        token_budget: most packed tokens of one micro-batch; a unit beyond it makes one of its own.
        common: what all texts begin with (``common_beginning``).
        share_prefix: compute what texts begin with only once.
    """
    groups: list[tuple[list[Example], PrefixTree]] = []
    for first, *others in units:
        alone = PrefixTree(common, share=share_prefix)
        alone.add(first.input_ids)
        more = -alone.tokens
        for other in others:
            alone.add(other.input_ids)
        more += alone.tokens
        if groups and groups[-1][1].tokens + groups[-1][1].cost(first.input_ids) + more <= token_budget:
            members, tree = groups[-1]
            for text in (first, *others):
                tree.add(text.input_ids)
            members += (first, *others)
        else:
            groups.append(([first, *others], alone))
    return [_lay(members, tree) for members, tree in groups]


def pack(examples: Sequence[Example], *, share_prefix: bool = True) -> MicroBatch:
    """Lay examples, each a single text, end to end, with what several begin with only once."""
    tree = PrefixTree(common_beginning(examples) if share_prefix else (), share=share_prefix)
    for example in examples:
        tree.add(example.input_ids)
    return _lay(examples, tree)


def computed_tokens(members: Sequence[Sequence[Example]], token_budget: int, *, share_prefix: bool) -> int:
    """Return how many tokens steps of these members compute.

    Args:
        members: the examples of each step.
        token_budget: most packed tokens of a micro-batch.
        share_prefix: whether what examples begin with is computed only once.
    """
    pieces = (micro_batches(step, token_budget, share_prefix=share_prefix) for step in members)
    return sum(piece.layout.total for step in pieces for piece in step)


def common_beginning(examples: Sequence[Example]) -> tuple[int, ...]:
    """Return what all examples begin with, if it is worth to be shared."""
    length = common_prefix([example.input_ids for example in examples])
    return examples[0].input_ids[:length] if worth_sharing(length, len(examples)) else ()


def _in_order(examples: Sequence[Example], common: tuple[int, ...], *, share_prefix: bool) -> list[Example]:
    """Return the examples by length, those that begin alike beside each other."""
    by_length = sorted(examples, key=lambda item: len(item.input_ids))
    if not share_prefix:
        return by_length
    tree = PrefixTree(common)
    for example in by_length:
        tree.add(example.input_ids)
    clusters = sorted(tree.clusters(), key=lambda numbers: (len(by_length[numbers[-1]].input_ids), numbers))
    return [by_length[number] for numbers in clusters for number in numbers]


def _lay(examples: Sequence[Example], tree: PrefixTree) -> MicroBatch:
    layout, ids, stretches = tree.layout()
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, (example, parts) in enumerate(zip(examples, stretches, strict=True)):
        places = [place for start, stop in parts for place in range(start, stop)]
        for position, learned in enumerate(example.learn):
            if learned and position:
                rows.append(places[position - 1])
                targets.append(example.input_ids[position])
                owners.append(number)
    return MicroBatch(
        input_ids=torch.tensor([ids]),
        layout=layout,
        rows=torch.tensor(rows, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        owners=torch.tensor(owners, dtype=torch.int64),
        tokens=sum(len(example.input_ids) for example in examples),
        examples=tuple(examples),
    )

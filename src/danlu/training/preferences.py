"""Preference objectives: DPO, KTO and ORPO, on the scores of judged answers.

A score is the sum of the log-probabilities of an answer's tokens, in nats. The model before the first step, the
reference, is asked once for the scores of all examples (``Reference``); after that only one model is in memory.
Pairs are never torn apart, so a step's loss and gradient do not depend on how it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid, softplus

from danlu.data.batches import MicroBatch, common_beginning, pack_together
from danlu.data.examples import Example
from danlu.errors import TrainingError
from danlu.training.forward import LossModel
from danlu.training.preference_settings import PreferenceSettings
from danlu.training.tensors import load_tensors, save_tensors

# Of an answer that is all but certain the odds are beyond what float32 can hold.
_MOST_CERTAIN = -1e-6

Batch = Sequence[Example] | MicroBatch


@dataclass(frozen=True)
class Figures:
    """What the comparison of a step or a measurement says.

    Attributes:
        preferred: share of pairs whose chosen answer has the greater reward; of labelled answers, the share on the
            right side of the estimate that they are compared with.
        margin: mean reward of the chosen (wanted) answers less that of the rejected ones, in nats times beta; None
            where a step has only one kind of label.
    """

    preferred: float
    margin: float | None


@dataclass(frozen=True)
class Piece:
    """Examples of a step that are computed at once.

    Attributes:
        batch: their texts, of pairs the two of each one after the other.
        members: the examples.
        tokens: computed tokens.
    """

    batch: Batch
    members: tuple[Example, ...]
    tokens: int


class _Shift:
    """KTO's estimate of how far the model has moved at all: the mean over the other answers of a step, at least 0."""

    def __init__(self, losses: LossModel, examples: Sequence[Example], token_budget: int, reference: Reference) -> None:
        self._losses = losses
        self._examples = [example for example in examples if len(example.parts) == 2]
        self._budget = token_budget
        self._reference = reference

    @cached_property
    def value(self) -> float:
        """Nats; computed when first asked for, and then the same for all pieces of the step."""
        if not self._examples:
            return 0.0
        others = [example.parts[1] for example in self._examples]
        now = scores(self._losses, others, self._budget)[:, 0]
        before = self._reference.of(self._examples)[:, 1]
        return max(float((now - before).mean()), 0.0)


class Reference:
    """The scores of examples under the model before the first step."""

    def __init__(self, scores: Mapping[Example, tuple[float, float]]) -> None:
        self._scores = scores

    def of(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the scores of the two texts of examples, float32, shape [N, 2]; 0 where there is no second."""
        return torch.tensor([self._scores[example] for example in examples], dtype=torch.float32)

    @classmethod
    def measured(cls, losses: LossModel, examples: Sequence[Example], token_budget: int) -> Reference:
        """Ask a model for the scores of examples."""
        return cls(_by_example(examples, scores(losses, examples, token_budget)))

    @classmethod
    def kept(cls, path: Path, losses: LossModel, examples: Sequence[Example], token_budget: int) -> Reference:
        """Return what a run has kept in a file, or ask the model and keep it: a run that goes on uses the same.

        Args:
            path: the file.
            losses: the model before the first step; where the file is there, any.
            examples: the examples, in the same order each time.
            token_budget: most tokens at once.

        Raises:
            TrainingError: the file is damaged or belongs to other examples.
        """
        if path.is_file():
            return cls.read(path, examples)
        # What is measured on a way that does not agree would be wrong for the whole run.
        losses.packed_agrees(sorted(examples, key=lambda item: len(item.input_ids))[:2])
        reference = cls.measured(losses, examples, token_budget)
        reference.write(path, examples)
        return reference

    @classmethod
    def unmeasured(cls, examples: Sequence[Example]) -> Reference:
        """Return zeros, for measuring how long a step takes."""
        return cls(dict.fromkeys(examples, (0.0, 0.0)))

    @classmethod
    def read(cls, path: Path, examples: Sequence[Example]) -> Reference:
        """Read what ``write`` wrote for the same examples.

        Raises:
            TrainingError: the file is damaged or belongs to other examples.
        """
        found = load_tensors(path).get("scores")
        if found is None or found.shape != (len(examples), 2):
            raise TrainingError("training.reference_mismatch", str(path))
        return cls(_by_example(examples, found))

    def write(self, path: Path, examples: Sequence[Example]) -> None:
        """Write the scores of examples, so that a run that goes on compares with the same."""
        partial = path.with_suffix(".partial")
        save_tensors({"scores": self.of(examples)}, partial)
        partial.replace(path)


class PreferenceObjective:
    """DPO, KTO or ORPO as an ``Objective`` of the loop."""

    def __init__(self, settings: PreferenceSettings, reference: Reference) -> None:
        self.settings = settings
        self.reference = reference
        self._seen: list[_Compared] = []
        self._shift: _Shift | None = None
        self._budget = 0

    def pieces(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> list[tuple[int, Piece]]:
        """Cut a step into pieces that fit the budget, each with its number of computed tokens."""
        self._seen.clear()  # of a step that ran out of memory and is done again, only the second time counts
        self._shift = None
        self._budget = token_budget
        pieces = _pieces(losses, examples, token_budget, self._texts)
        return [(piece.tokens, piece) for piece in pieces]

    def loss(self, losses: LossModel, piece: Piece, examples: Sequence[Example]) -> torch.Tensor:
        """Return what one piece adds to the mean over the examples of its step."""
        if self._shift is None:  # one for the whole step, whoever computes which of its pieces
            self._shift = _Shift(losses, examples, self._budget, self.reference)
        compared = self._compare(_scores(losses, piece.batch), piece.members, self._shift)
        self._seen.append(compared.detached())
        return compared.losses.sum() / len(examples)

    def heldout_loss(self, losses: LossModel, examples: Sequence[Example], token_budget: int) -> float:
        """Return the mean over held-out examples, without a graph; ``figures`` then says what they say."""
        losses.model.eval()
        with torch.no_grad():
            pieces = self.pieces(losses, examples, token_budget)
            total = sum(float(self.loss(losses, piece, examples)) for _, piece in pieces)
        losses.model.train()
        return total

    def forget_last(self) -> None:
        """Forget what the last piece said: it does not count."""
        self._seen.pop()

    def figures(self, collect: Callable[[list[_Compared]], list[_Compared]] | None = None) -> Figures:
        """Return what the pieces since the last call said, and forget them.

        Args:
            collect: adds what other processes have seen.
        """
        seen, self._seen = self._seen, []
        seen = seen if collect is None else collect(seen)
        right = torch.cat([item.right for item in seen])
        good, bad = (torch.cat([getattr(item, side) for item in seen]) for side in ("good", "bad"))
        margin = float(good.mean() - bad.mean()) if len(good) and len(bad) else None
        return Figures(float(right.float().mean()), margin)

    def _texts(self, example: Example) -> tuple[Example, ...]:
        return example.parts if self.settings.paired else example.parts[:1]

    def _compare(self, found: torch.Tensor, members: Sequence[Example], shift: _Shift) -> _Compared:
        if not self.settings.paired:
            before = self.reference.of(members)[:, 0]
            wanted = torch.tensor([example.wanted for example in members])
            return _kto(found - before, wanted, shift.value, self.settings)
        pairs = found.view(len(members), 2)
        lengths = torch.tensor([[part.supervised for part in example.parts] for example in members])
        if self.settings.objective == "orpo":
            return _orpo(pairs / lengths, self.settings)
        return _dpo(pairs, self.reference.of(members), lengths, self.settings)


@dataclass(frozen=True)
class _Compared:
    """Losses of examples, shape [N]; whether each is right, shape [N]; rewards of good and of bad answers."""

    losses: torch.Tensor
    right: torch.Tensor
    good: torch.Tensor
    bad: torch.Tensor

    def detached(self) -> _Compared:
        return _Compared(*(value.detach() for value in (self.losses, self.right, self.good, self.bad)))


def _dpo(
    pairs: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, settings: PreferenceSettings
) -> _Compared:
    """Rafailov et al. 2023, equation 7; IPO with scores a token, as its authors say it is meant (TRL issue 1161).

    Args:
        pairs: scores of the chosen and the rejected answers, shape [N, 2].
        reference: the same under the reference.
        lengths: tokens of the answers, shape [N, 2].
        settings: the objective.
    """
    gains = pairs - reference
    if settings.loss_type == "ipo":
        gains = gains / lengths
        losses = (gains[:, 0] - gains[:, 1] - 1 / (2 * settings.beta)) ** 2
    else:
        margins = settings.beta * (gains[:, 0] - gains[:, 1])
        doubt = settings.label_smoothing
        losses = -(1 - doubt) * logsigmoid(margins) - doubt * logsigmoid(-margins)
    if settings.rpo_alpha:
        losses = losses - settings.rpo_alpha * pairs[:, 0] / lengths[:, 0]
    rewards = settings.beta * gains
    return _Compared(losses, rewards[:, 0] > rewards[:, 1], rewards[:, 0], rewards[:, 1])


def _orpo(means: torch.Tensor, settings: PreferenceSettings) -> _Compared:
    """Hong, Lee and Thorne 2024, equations 4 to 6: the chosen answer's loss, and beta times that of the odds ratio.

    Args:
        means: log-probability of a token of the chosen and the rejected answers, in the mean, shape [N, 2].
        settings: the objective.
    """
    odds = means - torch.log(-torch.expm1(means.clamp(max=_MOST_CERTAIN)))
    losses = -means[:, 0] + settings.beta * softplus(odds[:, 1] - odds[:, 0])
    rewards = settings.beta * means
    return _Compared(losses, rewards[:, 0] > rewards[:, 1], rewards[:, 0], rewards[:, 1])


def _kto(gains: torch.Tensor, wanted: torch.Tensor, shift: float, settings: PreferenceSettings) -> _Compared:
    """Ethayarajh et al. 2024, equation 8.

    Args:
        gains: scores of the answers less those under the reference, shape [N].
        wanted: whether each is to be come to, shape [N].
        shift: how far the model has moved at all.
        settings: the objective.
    """
    side = torch.where(wanted, 1.0, -1.0)
    weights = torch.where(wanted, settings.desirable_weight, settings.undesirable_weight)
    above = settings.beta * (gains - shift)
    losses = weights * torch.sigmoid(-side * above)  # 1 - sigmoid(x) = sigmoid(-x)
    rewards = settings.beta * gains
    return _Compared(losses, side * above > 0, rewards[wanted], rewards[~wanted])


def scores(losses: LossModel, examples: Sequence[Example], token_budget: int) -> torch.Tensor:
    """Return the scores of the texts of examples, no graph, float32, shape [N, 2]; 0 where there is no second."""
    texts = [part for example in examples for part in example.parts]
    places = [(row, column) for row, example in enumerate(examples) for column in range(len(example.parts))]
    was_training = losses.model.training
    losses.model.eval()
    with torch.no_grad():
        values = _scores_of_texts(losses, texts, token_budget)
    losses.model.train(was_training)
    table = torch.zeros(len(examples), 2)
    table[[row for row, _ in places], [column for _, column in places]] = values
    return table


def _scores_of_texts(losses: LossModel, texts: Sequence[Example], token_budget: int) -> torch.Tensor:
    found = torch.zeros(len(texts))
    at = 0
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].input_ids))
    for piece in _pieces(losses, [texts[index] for index in order], token_budget, _itself):
        found[order[at : at + len(piece.members)]] = _scores(losses, piece.batch)
        at += len(piece.members)
    return found


def _itself(text: Example) -> tuple[Example, ...]:
    return (text,)


def _pieces(
    losses: LossModel,
    examples: Sequence[Example],
    token_budget: int,
    texts_of: Callable[[Example], tuple[Example, ...]],
) -> list[Piece]:
    """Put examples together by length as long as they fit the budget; one that never fits is a piece of its own."""
    ordered = sorted(examples, key=lambda item: sum(len(text.input_ids) for text in texts_of(item)))
    units = [texts_of(example) for example in ordered]
    made: list[Piece] = []
    for batch, tokens in _packed(losses, units, token_budget) if losses.packed else _padded(units, token_budget):
        count, members = len(batch.examples if isinstance(batch, MicroBatch) else batch), []
        while count:
            members.append(ordered.pop(0))
            count -= len(texts_of(members[-1]))
        made.append(Piece(batch, tuple(members), tokens))
    return made


def _packed(losses: LossModel, units: Sequence[Sequence[Example]], token_budget: int) -> list[tuple[Batch, int]]:
    share = losses.share_prefix
    common = common_beginning([text for unit in units for text in unit]) if share and units else ()
    return [(batch, batch.layout.total) for batch in pack_together(units, token_budget, common, share_prefix=share)]


def _padded(units: Sequence[Sequence[Example]], token_budget: int) -> list[tuple[Batch, int]]:
    groups: list[list[Example]] = []
    for unit in units:
        together = [*groups[-1], *unit] if groups else []
        if together and _rectangle(together) <= token_budget:
            groups[-1] = together
        else:
            groups.append([*unit])
    return [(group, _rectangle(group)) for group in groups]


def _rectangle(texts: Sequence[Example]) -> int:
    return len(texts) * max(len(text.input_ids) for text in texts)


def _scores(losses: LossModel, batch: Batch) -> torch.Tensor:
    """Return the score of each text of a batch, with its graph, float32."""
    values, owners = losses.token_losses(batch)
    count = len(batch.examples if isinstance(batch, MicroBatch) else batch)
    return values.new_zeros(count).index_add(0, owners, -values)


def _by_example(examples: Sequence[Example], table: torch.Tensor) -> dict[Example, tuple[float, float]]:
    rows: list[list[float]] = table.tolist()
    return {example: (row[0], row[1]) for example, row in zip(examples, rows, strict=True)}

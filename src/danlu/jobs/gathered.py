"""What the data sets of a run hold, gathered without holding it in memory: answers and pieces of texts.

Not for what is decided of it (``material``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from danlu.data.conversations import Conversation
from danlu.data.datasets import Dataset, DatasetLibrary
from danlu.data.encode import LearnPolicy
from danlu.data.encoded import Encoder
from danlu.data.examples import Example
from danlu.data.holdout import questions_aside
from danlu.data.mixture import MixPart, Share, times_drawn
from danlu.data.sequences import Chained, Ints
from danlu.data.split import HoldoutBy
from danlu.errors import RecipeError
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.models.versions import DatasetRef
from danlu.recipe import Recipe


@dataclass(frozen=True)
class Chosen:
    """Which of N conversations are learned, and which are measured on; bool, shape [N] each."""

    train: npt.NDArray[np.bool_]
    holdout: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """The conversations of some versions, gone through once.

    Attributes:
        parts: the conversations of each version.
        hashes: hash of the rows of each version.
        names: the names of the versions.
        left_out: rows whose answer was not accepted, which are not among the conversations.
        learn: which answers of a conversation are learned.
        shares: how much of each version is learned; none where they are only measured on.
    """

    parts: tuple[Sequence[Conversation], ...]
    hashes: tuple[str, ...]
    names: tuple[str, ...] = ()
    left_out: int = 0
    learn: LearnPolicy = "all"
    shares: tuple[Share, ...] = ()

    @classmethod
    def of(cls, library: DatasetLibrary, datasets: Sequence[DatasetRef], recipe: Recipe) -> Answers:
        """Open versions, as many rows of each as the recipe says.

        Raises:
            NotFoundError: a version is gone.
        """
        opened = [library.open_version(ref.name, ref.version) for ref in datasets]
        return cls(
            tuple(item.conversations[: recipe.data.max_samples] for item in opened),
            tuple(item.sha256 for item in opened),
            tuple(item.name for item in opened),
            sum(len(item.left_out) for item in opened),
            recipe.data.learn,
            shares_of(recipe),
        )

    @cached_property
    def conversations(self) -> Chained[Conversation]:
        """All conversations, N."""
        return Chained(self.parts)

    @cached_property
    def _looked(self) -> tuple[npt.NDArray[np.bool_], int, int]:
        """Which are pseudo labels, how many count less, and how many carry reasoning."""
        pseudo, weighed, reasoned = [], 0, 0
        for item in self.conversations:
            pseudo.append(item.pseudo)
            weighed += item.weight != 1
            reasoned += item.reasoned
        return np.array(pseudo, dtype=np.bool_), weighed, reasoned

    @property
    def pseudo(self) -> npt.NDArray[np.bool_]:
        """Which answers a model wrote, bool, shape [N]."""
        return self._looked[0]

    @property
    def weighed(self) -> int:
        """Conversations that count less than others."""
        return self._looked[1]

    @property
    def reasoned(self) -> int:
        """Conversations with a learned answer that carries its reasoning."""
        return self._looked[2]

    @property
    def everything(self) -> Chosen:
        """Learn all, keep none aside."""
        return Chosen(np.ones(len(self.pseudo), dtype=np.bool_), np.zeros(len(self.pseudo), dtype=np.bool_))

    def split(self, share: float, seed: int, by: HoldoutBy = "cluster") -> Chosen:
        """Keep some aside: questions by themselves, or clusters of like questions (see ``split``).

        What a model wrote is never measured on, and not learned either where its question is measured on.
        """
        if share == 0:
            return self.everything
        questions = [item.question for item in self.conversations]
        aside = questions_aside(questions, share, seed, by, ~self.pseudo)
        return Chosen(~aside, aside & ~self.pseudo)

    def drawn(self, chosen: Chosen, seed: int) -> tuple[Ints, tuple[MixPart, ...]]:
        """Return how often each conversation is learned in an epoch, int64, shape [N], and what became of the shares.

        Raises:
            RecipeError: more samples are asked for than there are rows.
        """
        sizes = [len(part) for part in self.parts]
        return times_drawn(chosen.train, self.names, self.hashes, sizes, self.shares, seed)

    def encoded(self, encoder: Encoder, chat_format: ChatFormat) -> tuple[Chained[Example], npt.NDArray[np.int64]]:
        """Return the examples of all conversations, and for each example the number of its conversation."""
        pairs = zip(self.hashes, self.parts, strict=True)
        tables = [encoder.conversations(sha256, part, chat_format, self.learn) for sha256, part in pairs]
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        origins = [table.columns.origin + start for table, start in zip(tables, starts[:-1], strict=True)]
        return Chained(tables), np.concatenate(origins)


@dataclass(frozen=True)
class Pieces:
    """Documents, cut.

    Attributes:
        examples: the pieces.
        documents: how many documents there are.
        cut: documents longer than a piece.
        origins: number of the document that each piece is of, int64, shape [pieces].
        sizes: how many documents each data set has.
    """

    examples: Sequence[Example]
    documents: int
    cut: int
    origins: Ints
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, datasets: Sequence[Dataset], encoder: Encoder, document_format: DocumentFormat, length: int) -> Pieces:
        """Cut the documents of data sets."""
        tables = [encoder.documents(item.sha256, item.documents, document_format, length) for item in datasets]
        counts = [np.bincount(table.columns.origin) for table in tables]
        sizes = tuple(len(item.documents) for item in datasets)
        starts = np.cumsum([0, *sizes])
        origins = [table.columns.origin + start for table, start in zip(tables, starts[:-1], strict=True)]
        cut = sum(int((c > 1).sum()) for c in counts)
        return cls(Chained(tables), sum(sizes), cut, np.concatenate(origins), sizes)


def shares_of(recipe: Recipe) -> tuple[Share, ...]:
    """Return how much of each data set of a recipe is learned, in the order of ``data.train``.

    Raises:
        RecipeError: a weight or a number of samples is given for what is not learned.
    """
    data = recipe.data
    for field, named in (("weights", data.weights), ("samples", data.samples)):
        unknown = next((name for name in named if name not in data.train), None)
        if unknown is not None:
            known = ", ".join(data.train)
            raise RecipeError("versions.not_learned", f"data.{field}", name=unknown, known=known)
    return tuple(Share(data.weights.get(name, 1.0), data.samples.get(name)) for name in data.train)


def documents_of(library: DatasetLibrary, datasets: Sequence[DatasetRef], most: int | None) -> list[Dataset]:
    """Open versions of texts; ``most`` documents of each, None for all.

    Raises:
        NotFoundError: a version is gone.
    """
    opened = [library.open_version(ref.name, ref.version) for ref in datasets]
    return [replace(item, documents=item.documents[:most]) for item in opened]

"""What a run learns and is measured on: from the versions of its data sets to examples.

The plan's data are decided here for a new run and made again, the same, for one that is reopened. Conversations go
through the chat format, plain texts are cut and packed. Not for the model (``preparing``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary, require_kind
from danlu.data.encode import count_tokens
from danlu.data.encoded import Encoder
from danlu.data.examples import Example
from danlu.data.holdout import asked_in_both
from danlu.data.judged import PreferenceSplit, encode_labels, encode_pairs, split_preferences
from danlu.data.mixture import MixPart, times_drawn
from danlu.data.preferences import Preference
from danlu.data.sequences import Selected
from danlu.data.split import Split, normalise
from danlu.data.table import supervised_of
from danlu.data.texts import PieceSplit, fill, split_pieces
from danlu.errors import DataError
from danlu.evaluation.openings import Opening, openings_from
from danlu.evaluation.probes import Probe, probes_from, read_probes
from danlu.hardware import Machine
from danlu.jobs.gathered import Answers, Chosen, Pieces, documents_of, shares_of
from danlu.jobs.pseudo import pseudo_notices, require_measurable
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.models.library import ModelFolder
from danlu.models.versions import DatasetRef, Thinking
from danlu.planning.facts import DataFacts, JudgedFacts, TextFacts
from danlu.planning.plan import (
    Notice,
    Plan,
    decide_holdout,
    decide_text_holdout,
    decide_text_length,
    decide_thinking,
)
from danlu.planning.preferences import PREFERENCES
from danlu.planning.rules import Choice
from danlu.planning.semi_rules import require_unsmoothed
from danlu.recipe import Recipe

_PROBES_MADE = 10
_OPENINGS_MADE = 5
_NO_SPLIT = Split((), ())
# Notices, not errors: who measures on what was learned may want to.
_COPIES = "planning.notice_holdout_copies"


@dataclass(frozen=True)
class Material:
    """The data of a run, encoded.

    Attributes:
        chat_format: how conversations are written, in the probes and with the finished model too.
        examples: what is learned.
        heldout: what is measured on; may be empty.
        facts: the same in numbers.
        split: the conversations behind the examples, of pairs those with the chosen answers; none of plain texts.
        document_format: how documents are written; None for conversations.
        openings: beginnings of texts to go on with; none of conversations.
        mix: how much of each data set is learned in an epoch.
    """

    chat_format: ChatFormat
    examples: Sequence[Example]
    heldout: Sequence[Example]
    facts: DataFacts
    split: Split = _NO_SPLIT
    document_format: DocumentFormat | None = None
    openings: Sequence[Opening] = ()
    mix: tuple[MixPart, ...] = ()


@dataclass(frozen=True)
class Decided:
    """The data of a new run, and what was decided on the way.

    Attributes:
        material: the data.
        holdout: the share that is kept aside, and why.
        notices: what is to be known of the data.
    """

    material: Material
    holdout: Choice
    notices: tuple[Notice, ...] = ()


def decide_material(
    recipe: Recipe,
    base: ModelFolder,
    machine: Machine,
    library: DatasetLibrary,
    encoder: Encoder,
    datasets: Sequence[DatasetRef],
    aside: DatasetRef | None = None,
    tokenizer: Path | None = None,
) -> Decided:
    """Encode the data of a new run.

    Args:
        recipe: what the person wants.
        base: the base model.
        machine: this machine.
        library: the data sets.
        encoder: encodes them.
        datasets: the versions that are learned.
        aside: the one that is measured on; None keeps a share of the others aside.
        tokenizer: folder of the tokenizer where it has new tokens; None for the base's own.

    Raises:
        DataError: nothing is left to learn, or what a model wrote would be measured on.
        RecipeError: rows weigh differently, and targets are to be smoothed.
    """
    chat_format = ChatFormat.load(tokenizer or base.path, recipe.system)
    seed, most = recipe.train.seed, recipe.data.max_samples
    if recipe.objective == "pretrain":
        document_format = DocumentFormat.of(chat_format.tokenizer)
        length = decide_text_length(recipe, base, machine)
        pieces = Pieces.of(documents_of(library, datasets, most), encoder, document_format, length)
        holdout = decide_text_holdout(recipe, len(pieces.examples), int(supervised_of(pieces.examples).sum()))
        kept = None
        if aside is not None:
            kept = Pieces.of(documents_of(library, [aside], most), encoder, document_format, length).examples
        parts = _text_split(pieces.examples, kept, float(holdout.value or 0), seed)
        parts, mix = _mixed_texts(parts, pieces, datasets, recipe)
        made = replace(_of_texts(chat_format, document_format, pieces, parts, length, seed), mix=mix)
        return Decided(made, holdout, () if aside is None else _copied_texts(parts, aside.name))
    if recipe.objective in PREFERENCES:
        preferences, sizes = _preferences(library, datasets, recipe)
        holdout = decide_holdout(recipe, len(preferences))
        answers = [answer for item in preferences for answer in item.answers]
        reasoned = sum(answer.reasoned for answer in answers)
        chat_format, notices = decide_thinking(chat_format, reasoned, len(answers), recipe.thinking)
        judged = split_preferences(preferences, float(holdout.value or 0), seed)
        judged, mix = _mixed_preferences(judged, preferences, sizes, datasets, recipe)
        made = replace(_of_preferences(chat_format, judged, recipe.objective, datasets[0].name), mix=mix)
        return Decided(made, holdout, notices)
    read = Answers.of(library, datasets, recipe)
    if read.left_out and not read.conversations:
        raise DataError("data.none_accepted", datasets[0].name, rows=read.left_out)
    require_unsmoothed(recipe, read.weighed)
    holdout = decide_holdout(recipe, int((~read.pseudo).sum()))
    chat_format, notices = decide_thinking(chat_format, read.reasoned, len(read.conversations), recipe.thinking)
    if aside is None:
        chosen = read.split(float(holdout.value or 0), seed)
        made = _of_conversations(chat_format, encoder, read, chosen, seed)
    else:
        opened = library.open_version(aside.name, aside.version)
        require_measurable(opened)
        chosen = read.everything
        made = _of_conversations(chat_format, encoder, read, chosen, seed, Answers.of(library, [aside], recipe))
        notices = (*notices, *_copied_questions(made.split, aside.name))
    times, _ = read.drawn(chosen, seed)
    learned = Selected(read.conversations, np.flatnonzero((times > 0) & read.pseudo))
    notices = (*notices, *pseudo_notices(int(read.pseudo.sum()), learned, read.left_out))
    return Decided(made, holdout, notices)


def planned_material(
    plan: Plan,
    recipe: Recipe,
    base: ModelFolder,
    library: DatasetLibrary,
    encoder: Encoder,
    data: str | None = None,
    tokenizer: Path | None = None,
) -> Material:
    """Encode the data of a run as it was planned.

    Args:
        plan: the run's plan.
        recipe: the run's recipe.
        base: its base model.
        library: the data sets.
        encoder: encodes them.
        data: data set, or file, to measure on instead of what was kept aside.
        tokenizer: folder of the tokenizer where it has new tokens; None for the base's own.

    Raises:
        NotFoundError: a version of a data set is gone.
        DataError: ``data`` does not fit what the run has learned.
    """
    chat_format = chat_format_of(tokenizer or base.path, plan.system, plan.thinking)
    seed, share, most = plan.settings.seed, plan.holdout_share, recipe.data.max_samples
    other = None if data is None else library.open(data)
    if other is not None:
        require_kind(other.name, other.kind, plan.objective)
    if plan.objective == "pretrain":
        document_format = DocumentFormat.of(chat_format.tokenizer)
        length = plan.max_length
        pieces = Pieces.of(documents_of(library, plan.datasets, most), encoder, document_format, length)
        aside, kept = plan.holdout_dataset, None
        if aside is not None:
            kept = Pieces.of(documents_of(library, [aside], most), encoder, document_format, length).examples
        parts, _ = _mixed_texts(_text_split(pieces.examples, kept, share, seed), pieces, plan.datasets, recipe)
        made = _of_texts(chat_format, document_format, pieces, parts, length, seed)
        if other is None:
            return made
        theirs = Pieces.of([other], encoder, document_format, length).examples
        openings = openings_from(theirs, document_format, _OPENINGS_MADE, seed)
        return replace(made, heldout=fill(theirs, length), openings=openings)
    if plan.objective in PREFERENCES:
        preferences, sizes = _preferences(library, plan.datasets, recipe)
        judged = split_preferences(preferences, share, seed, plan.holdout_by)
        judged, _ = _mixed_preferences(judged, preferences, sizes, plan.datasets, recipe)
        if other is not None:
            judged = PreferenceSplit(judged.train, other.preferences)
        return _of_preferences(chat_format, judged, plan.objective, plan.datasets[0].name)
    read = Answers.of(library, plan.datasets, recipe)
    measured = None if plan.holdout_dataset is None else Answers.of(library, [plan.holdout_dataset], recipe)
    if other is not None:
        require_measurable(other)
        measured = Answers((other.conversations,), (other.sha256,), learn=recipe.data.learn)
    return _of_conversations(chat_format, encoder, read, read.split(share, seed, plan.holdout_by), seed, measured)


def chat_format_of(tokenizer: Path, system: str, thinking: Thinking) -> ChatFormat:
    """Return the chat format of a run by its tokenizer's folder; a template without think blocks has no policy."""
    plain = ChatFormat.load(tokenizer, system)
    return replace(plain, thinking=thinking) if plain.can_think else plain


def probes_of(recipe: Recipe, material: Material, seed: int) -> tuple[list[Probe], bool]:
    """Take the recipe's probes, or make some of the held-out rows, or else of the rows themselves.

    None are made of texts, nor of judged answers, which are not there to be repeated, nor of what a model wrote.

    Returns:
        The probes, and whether none of them is a question of the training data.
    """
    split = material.split
    if recipe.eval.probes is not None:
        probes = read_probes(Path(recipe.eval.probes))
    elif material.facts.judged is not None:
        probes = []
    else:
        probes = probes_from(split.holdout or _written_by_people(split.train), _PROBES_MADE, seed)
    asked = {normalise(probe.question) for probe in probes}
    return probes, not any(normalise(conversation.question) in asked for conversation in split.train)


def _written_by_people(conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    return Selected(conversations, np.flatnonzero([not item.pseudo for item in conversations]))


def _of_conversations(
    chat_format: ChatFormat,
    encoder: Encoder,
    read: Answers,
    chosen: Chosen,
    seed: int,
    measured: Answers | None = None,
) -> Material:
    """Encode what was read, and choose from it; ``measured`` is measured on instead of what was kept aside."""
    if not chosen.train.any():
        raise DataError("data.no_rows", read.names[0] if read.names else "")
    examples, origins = read.encoded(encoder, chat_format)
    times, mix = read.drawn(chosen, seed)
    train = Selected(examples, np.repeat(np.arange(len(origins)), times[origins]))
    aside = Selected(examples, np.flatnonzero(chosen.holdout[origins]))
    split = Split(*(Selected(read.conversations, np.flatnonzero(part)) for part in (times, chosen.holdout)))
    heldout: Sequence[Example] = aside
    if measured is not None:
        heldout, _ = measured.encoded(encoder, chat_format)
        split = Split(split.train, measured.conversations)
    facts = DataFacts(
        rows=len(split.train) + len(split.holdout),
        train=len(train),
        holdout=len(split.holdout),
        tokens=count_tokens(train),
    )
    return Material(chat_format, train, heldout, facts, split, mix=mix)


def _of_preferences(chat_format: ChatFormat, judged: PreferenceSplit, objective: str, name: str) -> Material:
    encoded = encode_labels if objective == "kto" else encode_pairs
    examples, heldout = encoded(judged.train, chat_format), encoded(judged.holdout, chat_format)
    if not examples:
        raise DataError("data.no_rows", name)
    split = Split(*(tuple(item.answers[0] for item in side) for side in (judged.train, judged.holdout)))
    bad = sum(not example.wanted for example in examples) if objective == "kto" else len(examples)
    facts = DataFacts(
        rows=len(judged.train) + len(judged.holdout),
        train=len(examples),
        holdout=len(heldout),
        # Of a labelled answer the second text is another row's: it is not learned.
        tokens=count_tokens([part for item in examples for part in item.parts[: 1 if objective == "kto" else 2]]),
        judged=JudgedFacts(
            good=len(examples) - bad if objective == "kto" else len(examples),
            bad=bad,
            longest=max(len(example.input_ids) for example in examples),
        ),
    )
    return Material(chat_format, examples, heldout, facts, split)


def _of_texts(
    chat_format: ChatFormat,
    document_format: DocumentFormat,
    pieces: Pieces,
    split: PieceSplit,
    length: int,
    seed: int,
) -> Material:
    examples, heldout = fill(split.train, length), fill(split.holdout, length)
    facts = DataFacts(
        rows=pieces.documents,
        train=len(examples),
        holdout=len(heldout),
        tokens=count_tokens(split.train),
        texts=TextFacts(cut=pieces.cut, pieces=len(pieces.examples)),
    )
    openings = openings_from(split.holdout or split.train, document_format, _OPENINGS_MADE, seed)
    return Material(chat_format, examples, heldout, facts, document_format=document_format, openings=openings)


def _text_split(pieces: Sequence[Example], kept: Sequence[Example] | None, share: float, seed: int) -> PieceSplit:
    if kept is None:
        return split_pieces(pieces, share, seed)
    return PieceSplit(Selected(pieces, np.arange(len(pieces))), kept)


def _mixed_texts(
    split: PieceSplit, pieces: Pieces, datasets: Sequence[DatasetRef], recipe: Recipe
) -> tuple[PieceSplit, tuple[MixPart, ...]]:
    """Return the pieces to learn as often as their documents are learned; a document may be measured on in part."""
    shares = shares_of(recipe)
    names, hashes = [item.name for item in datasets], [item.sha256 for item in datasets]
    numbers = split.train.numbers if isinstance(split.train, Selected) else np.arange(len(split.train))
    origins = pieces.origins[numbers]
    may = np.zeros(pieces.documents, dtype=np.bool_)
    may[origins] = True
    times, mix = times_drawn(may, names, hashes, pieces.sizes, shares, recipe.train.seed)
    return replace(split, train=Selected(pieces.examples, np.repeat(numbers, times[origins]))), mix


def _copied_questions(split: Split, name: str) -> tuple[Notice, ...]:
    learned, measured = ([item.question for item in side] for side in (split.train, split.holdout))
    return _copies(asked_in_both(learned, measured), len(measured), name)


def _copied_texts(split: PieceSplit, name: str) -> tuple[Notice, ...]:
    measured = Counter(piece.input_ids for piece in split.holdout)
    copied = {piece.input_ids for piece in split.train if piece.input_ids in measured}
    return _copies(sum(measured[ids] for ids in copied), len(split.holdout), name)


def _copies(count: int, rows: int, name: str) -> tuple[Notice, ...]:
    return (Notice(code=_COPIES, params={"count": count, "rows": rows, "name": name}),) if count else ()


def _preferences(
    library: DatasetLibrary, datasets: Sequence[DatasetRef], recipe: Recipe
) -> tuple[list[Preference], list[int]]:
    """Return the judged answers of versions, and how many there are of each."""
    most = recipe.data.max_samples
    parts = [library.open_version(ref.name, ref.version).preferences[:most] for ref in datasets]
    return [item for part in parts for item in part], [len(part) for part in parts]


def _mixed_preferences(
    judged: PreferenceSplit,
    preferences: Sequence[Preference],
    sizes: Sequence[int],
    datasets: Sequence[DatasetRef],
    recipe: Recipe,
) -> tuple[PreferenceSplit, tuple[MixPart, ...]]:
    """Return the judged answers to learn as often as they are learned in an epoch."""
    learned = {id(item) for item in judged.train}
    may = np.array([id(item) in learned for item in preferences], dtype=np.bool_)
    names, hashes = [item.name for item in datasets], [item.sha256 for item in datasets]
    times, mix = times_drawn(may, names, hashes, sizes, shares_of(recipe), recipe.train.seed)
    pairs = zip(preferences, times.tolist(), strict=True)
    return replace(judged, train=tuple(item for item, count in pairs for _ in range(count))), mix

"""Judged answers to examples: a pair is one example of two texts; a labelled answer brings another row's answer along.

Not for what is made of them (``training.preferences``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from danlu.data.encode import encode
from danlu.data.examples import Example
from danlu.data.holdout import questions_aside
from danlu.data.preferences import Preference
from danlu.data.split import HoldoutBy
from danlu.models.chat_format import ChatFormat


@dataclass(frozen=True)
class PreferenceSplit:
    """Judged answers to learn from, and ones to measure on."""

    train: Sequence[Preference]
    holdout: Sequence[Preference]


def split_preferences(
    preferences: Sequence[Preference], share: float, seed: int, by: HoldoutBy = "cluster"
) -> PreferenceSplit:
    """Keep about ``share`` of the questions aside, with all their answers: one by one, or clusters of like ones."""
    aside = questions_aside([item.question for item in preferences], share, seed, by).tolist()
    return PreferenceSplit(
        train=tuple(item for item, kept in zip(preferences, aside, strict=True) if not kept),
        holdout=tuple(item for item, kept in zip(preferences, aside, strict=True) if kept),
    )


def encode_pairs(preferences: Sequence[Preference], chat_format: ChatFormat) -> list[Example]:
    """Return each pair as an example with two texts, the chosen answer's and the rejected one's."""
    return [join(*encode(item.answers, chat_format)) for item in preferences]


def encode_labels(preferences: Sequence[Preference], chat_format: ChatFormat) -> list[Example]:
    """Return each answer as an example with two texts: its own, and its prompt with the answer to another prompt.

    The second is what KTO estimates by how much the model has moved at all (Ethayarajh et al. 2024, "KTO: Model
    alignment as prospect theoretic optimization", arXiv 2402.01306, section 4.1: the outputs of a batch, shifted by
    one). Which answer that is depends on the rows alone: it is the next one in the file to another prompt, cut where
    it would be longer than the longest example. Where there is no other prompt, an example is its own text only.
    """
    conversations = [answer for item in preferences for answer in item.answers]
    wanted = [answer is item.chosen for item in preferences for answer in item.answers]
    own = encode(conversations, chat_format)
    longest = max((len(example.input_ids) for example in own), default=0)
    prompts = [example.input_ids[: _answer_at(example)] for example in own]
    return [
        _labelled(example, None if other is None else own[other], longest, wanted=good)
        for example, good, other in zip(own, wanted, _next_different(prompts), strict=True)
    ]


def join(*texts: Example) -> Example:
    """Return texts as one example in which none sees another."""
    return Example(
        tuple(token for text in texts for token in text.input_ids),
        tuple(learned for text in texts for learned in text.learn),
        texts[0].row,
        tuple(len(text.input_ids) for text in texts),
    )


def _labelled(own: Example, other: Example | None, longest: int, *, wanted: bool) -> Example:
    texts = [own]
    if other is not None:
        at = _answer_at(own)
        answer = other.input_ids[_answer_at(other) :][: max(longest - at, 1)]
        ids = (*own.input_ids[:at], *answer)
        texts.append(Example(ids, (False,) * at + (True,) * len(answer), own.row))
    return replace(join(*texts), wanted=wanted)


def _answer_at(example: Example) -> int:
    return example.learn.index(True)


def _next_different(prompts: Sequence[tuple[int, ...]]) -> list[int | None]:
    """Return for each prompt the next one that differs, going round; None where all are the same."""
    count = len(prompts)
    found: list[int | None] = [None] * (2 * count)
    for at in range(2 * count - 2, -1, -1):
        here, after = prompts[at % count], (at + 1) % count
        found[at] = after if prompts[after] != here else found[at + 1]
    return found[:count]

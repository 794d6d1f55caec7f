"""What a run is asked while it learns, so that a person sees where it goes. Not for the proof (``pipeline``)."""

from __future__ import annotations

from typing import Final

from danlu.evaluation.generate import answer_all, continue_all
from danlu.events import SampleAnswer
from danlu.jobs.preparing import WATCHED_TOKENS, Prepared
from danlu.models.messages import Message
from danlu.training.loop import Ask
from danlu.training.trained import TrainedModel

_PROBES_WATCHED: Final = 2
_OPENING_SHOWN: Final = 80


def asker(prepared: Prepared) -> Ask | None:
    """Return what is asked at every measurement: probe questions, prompts of judged answers, or beginnings of texts."""
    watched = prepared.probes[:_PROBES_WATCHED]
    if not watched and prepared.plan.settings.preference is not None:
        return _answerer(prepared)
    if not watched:
        return _continuer(prepared)

    def ask(model: TrainedModel) -> tuple[SampleAnswer, ...]:
        questions = [probe.messages for probe in watched]
        answers = answer_all(model, prepared.chat_format, questions, WATCHED_TOKENS, cut_mark=" …")
        return tuple(
            SampleAnswer(question=probe.question, answer=answer, passed=probe.passes(answer))
            for probe, answer in zip(watched, answers, strict=True)
        )

    return ask


def _answerer(prepared: Prepared) -> Ask:
    questions = questions_of(prepared, _PROBES_WATCHED)

    def answer(model: TrainedModel) -> tuple[SampleAnswer, ...]:
        answers = answer_all(model, prepared.chat_format, questions, WATCHED_TOKENS, cut_mark=" …")
        return tuple(
            SampleAnswer(question=_last_words(question[-1].content), answer=said)
            for question, said in zip(questions, answers, strict=True)
        )

    return answer


def _continuer(prepared: Prepared) -> Ask | None:
    document_format, openings = prepared.document_format, prepared.openings[:_PROBES_WATCHED]
    if document_format is None or not openings:
        return None

    def go_on(model: TrainedModel) -> tuple[SampleAnswer, ...]:
        beginnings = [opening.ids for opening in openings]
        texts = continue_all(model, document_format, beginnings, WATCHED_TOKENS, cut_mark=" …")
        return tuple(
            SampleAnswer(question=_last_words(opening.text), answer=" ".join(text.split()))
            for opening, text in zip(openings, texts, strict=True)
        )

    return go_on


def _last_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _OPENING_SHOWN else "…" + line[-_OPENING_SHOWN:]


def questions_of(prepared: Prepared, count: int) -> list[tuple[Message, ...]]:
    """Return some prompts of judged answers, of those kept aside if there are any."""
    conversations = prepared.split.holdout or prepared.split.train
    plain = (item.messages[:-1] for item in conversations if not item.tools)
    return list(dict.fromkeys(plain))[:count]

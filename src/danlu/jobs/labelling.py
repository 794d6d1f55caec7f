"""A finished run answers questions: pseudo labels, with what speaks for and against each, written for the next run.

Danlu learns from the file as it is (``data.conversations``). Not for asking a person, nor for measuring a model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary
from danlu.data.encode import encode
from danlu.data.questions import Question
from danlu.errors import DataError
from danlu.evaluation.agreement import consensus
from danlu.evaluation.generate import Answered, longest_answer, sample_all
from danlu.files import write_text
from danlu.i18n import t
from danlu.jobs.forge_order import LabelOrder
from danlu.jobs.messages import Advance, Labelled, LabelRow, Note, Tell
from danlu.jobs.pipeline import finished_model
from danlu.jobs.preparing import Prepared, stage
from danlu.models.messages import Message
from danlu.planning.semi_rules import LEAST_AGREEMENT, LEAST_CONFIDENCE, answer_room, label_weight
from danlu.training.forward import LossModel

Doubt = Literal["empty", "cut", "agreement", "confidence"]
_DIGITS: Final = 4


@dataclass(frozen=True)
class PseudoLabel:
    """The answer of a model to a question.

    Attributes:
        question: what was asked.
        samples: what the model answered, the greedy answer first.
        output: the sample that is closest to the others.
        agreement: mean similarity of the samples, 0 to 1.
        confidence: geometric mean of the probabilities of the output's tokens under the model, 0 to 1.
        weight: what it counts beside a person's answer, 0 to 1.
        doubt: why it is not accepted; None when it is.
    """

    question: Question
    samples: tuple[str, ...]
    output: str
    agreement: float
    confidence: float
    weight: float
    doubt: Doubt | None

    def line(self) -> str:
        """Return it as a row of the file."""
        row = {
            **self.question.fields,
            "output": self.output,
            "samples": list(self.samples),
            "agreement": self.agreement,
            "confidence": self.confidence,
            "weight": self.weight,
            "accepted": self.doubt is None,
            "doubt": self.doubt,
        }
        return json.dumps(row, ensure_ascii=False) + "\n"

    def told(self) -> LabelRow:
        """Return it in short."""
        return LabelRow(
            question=self.question.messages[-1].content,
            output=self.output,
            agreement=self.agreement,
            confidence=self.confidence,
            weight=self.weight,
            accepted=self.doubt is None,
        )


def label(prepared: Prepared, order: LabelOrder, tell: Tell) -> list[PseudoLabel]:
    """Let a finished run answer questions, and write the answers with their scores.

    Args:
        prepared: the run.
        order: the questions, and where the file goes.
        tell: receives what happens.

    Raises:
        TrainingError: the run has not finished.
        DataError: the questions cannot be read, or one leaves the model no room for an answer.
    """
    questions = DatasetLibrary(prepared.home.datasets).open_questions(order.questions)
    room = _room(prepared, questions, order.questions)
    model = finished_model(prepared)
    model.eval()
    total = len(questions) * order.samples
    text = t("jobs.label_asking")
    with stage(tell, "label", "jobs.stage_label", count=len(questions), samples=order.samples):
        answered = sample_all(
            model,
            prepared.chat_format,
            [question.messages for question in questions],
            order.samples,
            order.temperature,
            prepared.plan.settings.seed,
            room,
            # In percent: what is told in larger numbers is shown as bytes.
            advance=lambda done: tell(Advance(text=text, done=100 * done // total, total=100)),
        )
        tell(Note(text=t("jobs.note_confidence")))
        labels = _judge(prepared, LossModel(model), questions, answered)
        write_text(order.out, "".join(item.line() for item in labels))
    doubts = Counter(item.doubt for item in labels if item.doubt is not None)
    tell(
        Labelled(
            path=order.out,
            accepted=len(labels) - doubts.total(),
            doubts=dict(doubts),
            rows=tuple(item.told() for item in labels),
        )
    )
    return labels


def _judge(
    prepared: Prepared, losses: LossModel, questions: Sequence[Question], answered: Sequence[Sequence[Answered]]
) -> list[PseudoLabel]:
    labels = []
    for question, answers in zip(questions, answered, strict=True):
        common = consensus([answer.text for answer in answers])
        kept = answers[common.best]
        agreement = round(common.agreement, _DIGITS)
        confidence = round(_confidence(prepared, losses, question, kept.text), _DIGITS) if kept.text else 0.0
        labels.append(
            PseudoLabel(
                question=question,
                samples=tuple(answer.text for answer in answers),
                output=kept.text,
                agreement=agreement,
                confidence=confidence,
                weight=label_weight(agreement, confidence),
                doubt=_doubt(kept, agreement, confidence),
            )
        )
    return labels


def _confidence(prepared: Prepared, losses: LossModel, question: Question, answer: str) -> float:
    """Return the geometric mean of the probabilities of an answer's tokens, with the one that ends it."""
    messages = (*question.messages, Message("assistant", answer))
    learn = (False,) * len(question.messages) + (True,)
    examples = encode([Conversation(messages, learn, question.row, question.line)], prepared.chat_format)
    return math.exp(-losses.mean_loss(examples, prepared.plan.settings.token_budget))


def _doubt(kept: Answered, agreement: float, confidence: float) -> Doubt | None:
    if not kept.text:
        return "empty"
    if not kept.whole:
        return "cut"
    if agreement < LEAST_AGREEMENT:
        return "agreement"
    return "confidence" if confidence < LEAST_CONFIDENCE else None


def _room(prepared: Prepared, questions: Sequence[Question], name: str) -> int:
    """Return how many tokens an answer may have beside the longest question."""
    lengths = [len(prepared.chat_format.prompt_ids(question.messages)) for question in questions]
    most = prepared.base.architecture.max_context
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] >= most:
        where = t("data.place_row", file=name, row=questions[longest].row, line=questions[longest].line)
        raise DataError("data.question_too_long", where, tokens=lengths[longest], most=most)
    wanted = answer_room(prepared.examples, longest_answer(prepared.chat_format))
    return min(wanted, most - lengths[longest])

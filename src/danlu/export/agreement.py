"""Does an export say what its source says? Measured through llama.cpp itself; an export that fails is not published.

Four questions:

- *token ids*: does llama.cpp cut a corpus of Chinese, English, emoji and code into the same ids?
- *next token*: at positions along the export's own greedy answers and inside of sample texts, is the most likely next
  token the same, and how far apart are the distributions (KL divergence, nats a position)?
- *greedy*: is the whole greedy answer the same? Since the source is asked along the export's answer, the answers are
  the same exactly when every position's most likely token is; no second generation is needed.
- *end*: does llama.cpp end an answer at each of the tokens that end one?

llama.cpp names only the most likely tokens of a position, so the divergence is taken over those and one bin for all
others. Merging outcomes never raises a KL divergence, and the bin holds little, so the figure is a close lower bound.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from danlu.errors import ExportError
from danlu.export.reference import Reference
from danlu.models.chat_format import ChatFormat
from danlu.models.corpus import CORPUS
from danlu.models.messages import Message
from danlu.models.versions import Agreement
from danlu.processes import ChildProcess, python_child

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS: Final = (
    "Who are you?",
    "你是谁?",
    "What is the capital of France?",
    "请用一句话介绍北京。",
    "Write a Python function that adds two numbers.",
    "What can you help me with?",
)
_NEW_TOKENS: Final = 12
_CANDIDATES: Final = 64
# Positions inside of running text, where the model is less sure of itself than along its own answers.
TEXTS: Final = (CORPUS[0], CORPUS[8], CORPUS[9], CORPUS[13])
_PREFIXES_PER_TEXT: Final = 4
_TIMEOUT: Final = 900.0


@dataclass(frozen=True)
class Threshold:
    """What an export must reach.

    Attributes:
        top1: least share of positions with the same most likely token.
        kl: largest mean KL divergence, nats.
    """

    top1: float
    kl: float


# Measured on SmolLM2-135M-Instruct, untuned (some 85 positions, float32 source): f32 top-1 1.00 and KL 0.000001, f16
# 1.00 and 0.000004, bf16 1.00 and 0.0002, q8_0 0.97 and 0.008, q6_k 0.89 and 0.011, q5_k_m 0.82 and 0.14, q4_k_m 0.81
# and 0.06, q4_0 0.73 and 0.33 (its weights come from blocks of 4 bits, whose steps q5_1 happens to miss). Larger and
# tuned models suffer less.
# A mistake (rows not permuted, a bias left out) gives a top-1 near 0 and a divergence of several nats; the tests make
# some. Between two nearly equal tokens any rounding may decide, hence never 1.0.
THRESHOLDS: Final = {
    "f32": Threshold(top1=0.95, kl=0.0002),
    "f16": Threshold(top1=0.95, kl=0.0005),
    "bf16": Threshold(top1=0.92, kl=0.01),
    "q8_0": Threshold(top1=0.85, kl=0.03),
    "q6_k": Threshold(top1=0.75, kl=0.05),
    "q5_k_m": Threshold(top1=0.55, kl=0.50),
    "q4_k_m": Threshold(top1=0.50, kl=0.50),
    "q4_0": Threshold(top1=0.45, kl=0.80),
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Job(_Strict):
    """What the child is to do."""

    context: int
    threads: int
    texts: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    prefixes: tuple[tuple[int, ...], ...]
    stop_ids: tuple[int, ...]
    new_tokens: int
    candidates: int
    adapter: str | None = None


class Candidates(_Strict):
    """The token chosen at a position, and the most likely ones with their log-probabilities."""

    id: int
    top: tuple[tuple[int, float], ...]


class Continuation(_Strict):
    """What llama.cpp said after a prompt."""

    ids: tuple[int, ...]
    candidates: tuple[Candidates, ...]


class Answers(_Strict):
    """What the child found."""

    token_ids: tuple[tuple[int, ...], ...]
    answers: tuple[Continuation, ...]
    forced: tuple[Continuation, ...]
    ends: tuple[bool, ...]


def check_agreement(
    weights: Path,
    chat_format: ChatFormat,
    load_reference: Callable[[], Reference],
    quant: str,
    questions: Sequence[str] = QUESTIONS,
    adapter: Path | None = None,
) -> Agreement:
    """Compare a GGUF file with its source and fail if they disagree.

    Args:
        weights: the GGUF file.
        chat_format: tokenizer, system prompt and thinking policy of the version.
        load_reference: gives the source; called while llama.cpp already works.
        quant: storage type of the file, which sets the thresholds.
        questions: sample prompts.
        adapter: a GGUF adapter to lay over ``weights``.

    Raises:
        ExportError: llama.cpp cannot use the file, or a figure misses its threshold.
    """
    job = _job(chat_format, questions, adapter)
    with _Child(weights, job) as child:
        reference = load_reference()
        answers = child.result()
    _check_tokens(weights, chat_format, job, answers)
    same, divergences, greedy = _compare(job, answers, reference, chat_format)
    agreement = Agreement(
        token_ids=1.0,
        top1=round(float(np.mean(same)), 4),
        kl=round(float(np.mean(divergences)), 6),
        greedy=round(float(np.mean(greedy)), 4),
    )
    threshold = THRESHOLDS[quant]
    if agreement.top1 < threshold.top1 or not agreement.kl <= threshold.kl:
        raise ExportError(
            "export.disagrees",
            weights.name,
            top1=f"{agreement.top1:.3f}",
            least=threshold.top1,
            kl=f"{agreement.kl:.4f}",
            most=threshold.kl,
        )
    return agreement


def _job(chat_format: ChatFormat, questions: Sequence[str], adapter: Path | None) -> Job:
    prompts = tuple(tuple(chat_format.prompt_ids([Message("user", question)])) for question in questions)
    prefixes = tuple(ids[:end] for ids, ends in _sample_texts(chat_format) for end in ends)
    return Job(
        context=max(map(len, (*prompts, *prefixes))) + _NEW_TOKENS + 16,
        threads=os.cpu_count() or 1,
        texts=(*CORPUS, chat_format.prompt_text([Message("user", questions[0])])),
        prompts=prompts,
        prefixes=prefixes,
        stop_ids=tuple(sorted(chat_format.stop_ids)),
        new_tokens=_NEW_TOKENS,
        candidates=_CANDIDATES,
        adapter=None if adapter is None else str(adapter),
    )


def _check_tokens(weights: Path, chat_format: ChatFormat, job: Job, answers: Answers) -> None:
    """Token ids must be equal without exception: the gateway sends ids, but other callers send text."""
    for text, found in zip(job.texts, answers.token_ids, strict=True):
        if tuple(chat_format.tokenizer.encode(text, add_special_tokens=False)) != found:
            excerpt = text if len(text) <= 40 else text[:40] + "…"
            raise ExportError("export.tokens_disagree", weights.name, text=repr(excerpt))
    for stop_id, ended in zip(job.stop_ids, answers.ends, strict=True):
        if not ended:
            token = chat_format.tokenizer.convert_ids_to_tokens(stop_id)
            raise ExportError("export.end_not_known", weights.name, token=token)


def _compare(
    job: Job, answers: Answers, reference: Reference, chat_format: ChatFormat
) -> tuple[list[bool], list[float], list[bool]]:
    """Return for every position whether the top token is the same and the divergence; for every answer, equality."""
    same: list[bool] = []
    divergences: list[float] = []
    greedy: list[bool] = []
    samples = _sample_texts(chat_format)
    along = [
        ((*prompt, *answer.ids[:-1]), len(prompt)) for prompt, answer in zip(job.prompts, answers.answers, strict=True)
    ]
    # One pass serves every prefix of a text.
    found = iter(reference.log_probs([*along, *((ids, 1) for ids, _ in samples)]))
    for answer in answers.answers:
        rows = next(found)
        hits = [int(row.argmax()) == index for row, index in zip(rows, answer.ids, strict=True)]
        same += hits
        divergences += [divergence(rows[index], top) for index, top in _told(answer, chat_format.tokenizer)]
        greedy.append(all(hits))
    forced = iter(answers.forced)
    for _, ends in samples:
        rows = next(found)
        for end, answer in zip(ends, forced, strict=False):
            same.append(int(rows[end - 1].argmax()) == answer.ids[0])
            divergences += [divergence(rows[end - 1], top) for _, top in _told(answer, chat_format.tokenizer)]
    return same, divergences, greedy


def _sample_texts(chat_format: ChatFormat) -> list[tuple[tuple[int, ...], list[int]]]:
    """Return the ids of each sample text, and how many of them each of its prefixes has."""
    texts = [tuple(chat_format.tokenizer.encode(text, add_special_tokens=False)) for text in TEXTS]
    return [(ids, [int(end) for end in np.linspace(2, len(ids), _PREFIXES_PER_TEXT)]) for ids in texts]


def _told(answer: Continuation, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, tuple[tuple[int, float], ...]]]:
    """Return the positions that llama.cpp names candidates for, with those: none where a character is unfinished."""
    whole = [i for i in range(len(answer.ids)) if not tokenizer.decode(answer.ids[: i + 1]).endswith("\ufffd")]
    if [answer.ids[i] for i in whole] != [told.id for told in answer.candidates]:
        return []
    return [(i, told.top) for i, told in zip(whole, answer.candidates, strict=True)]


def divergence(source: np.ndarray, candidates: Sequence[tuple[int, float]]) -> float:
    """Return KL(source ‖ export) in nats over the candidates and one bin for the rest.

    Args:
        source: log-probabilities of the source, float32 ``[V]``.
        candidates: ids and log-probabilities of the export.
    """
    ids = np.array([index for index, _ in candidates])
    p = np.exp(source[ids].astype(np.float64))
    q = np.exp(np.array([log_prob for _, log_prob in candidates], np.float64))
    # Below a millionth, the rest is what rounding left over.
    p, q = np.append(p, max(1 - p.sum(), 1e-6)), np.append(q, max(1 - q.sum(), 1e-6))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(np.maximum(p, 1e-30) / np.maximum(q, 1e-30))))


class _Child:
    """The process with llama.cpp, from its start to its result."""

    def __init__(self, weights: Path, job: Job) -> None:
        self._weights = weights
        self._folder = tempfile.TemporaryDirectory(prefix="danlu-agreement-")
        root = Path(self._folder.name)
        self._log, self._result = root / "log", root / "result.json"
        (root / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
        command = python_child("danlu.export.agreement_child", str(weights), str(root / "job.json"), str(self._result))
        # Waiting threads of llama.cpp otherwise spin; with other work on the machine that costs seven times the time.
        self._process = ChildProcess(command, log=self._log, env={"OMP_WAIT_POLICY": "passive"})

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._folder.cleanup()

    def result(self) -> Answers:
        """Wait for the child and read what it found.

        Raises:
            ExportError: it failed, or does not come to an end.
        """
        status = self._process.wait(_TIMEOUT)
        if status != 0 or not self._result.is_file():
            how = self._process.ending() if status is not None else f"> {_TIMEOUT:.0f} s"
            raise ExportError("export.engine_refused", self._weights.name, how=how, reason=self._last_words())
        return Answers.model_validate_json(self._result.read_bytes())

    def _last_words(self) -> str:
        if not self._log.is_file():
            return "-"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "-"

"""A model writes rows for tasks: asked round after round until there are enough, every reply judged and noted.

What was asked, kept and turned down stands in a journal beside the file; after an interruption the journal is gone
through again and nothing is asked twice. Whoever calls brings the way to ask: an engine here or a server elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from danlu.data.making.judging import Judge, Reason
from danlu.data.making.replies import Candidate, candidates
from danlu.data.making.review import lines_of_rows, made_row
from danlu.data.making.tasks import Task
from danlu.errors import DataError, UsageError
from danlu.files import write_text
from danlu.models.messages import Message

# A task that a model cannot do in three rounds it cannot do in ten.
ROUNDS: Final = 3
_SHOWN: Final = 5
Ask = Callable[[Sequence[Message], int, int], Awaitable[str]]
"""Asks a model: messages, most tokens of the reply, seed; returns the reply without its thoughts."""
Advance = Callable[[int, int], None]


@dataclass
class Made:
    """What became of all tasks.

    Attributes:
        rows: the rows that were kept.
        turned_down: proposals that were not, by reason.
        examples: some of them: reason, question and answer.
        asked: requests to the model.
        short: tasks for which there are fewer rows than wanted.
        missing: rows that are missing there, together.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    turned_down: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[Reason, str, str]] = field(default_factory=list)
    asked: int = 0
    short: int = 0
    missing: int = 0


class Journal:
    """What was asked and what came of it, one JSON object a line.

    Args:
        path: the file.
        tasks: the tasks; a journal of other tasks is not gone on with.
        by: the model that is asked.
        resume: go on with a journal that is there.

    Raises:
        UsageError: it is there and is not to be gone on with, or belongs to something else.
        DataError: it is damaged.
    """

    def __init__(self, path: Path, tasks: Sequence[Task], by: str, *, resume: bool) -> None:
        self._path = path
        asked = [[task.kind, task.of, task.wanted, [message.content for message in task.messages]] for task in tasks]
        key = hashlib.sha256(json.dumps([asked, by], ensure_ascii=False).encode()).hexdigest()
        self.done: dict[tuple[int, int], list[Candidate]] = {}
        if path.exists():
            if not resume:
                raise UsageError("making.journal_exists", str(path))
            self._read(key)
        else:
            write_text(path, json.dumps({"format": 1, "key": key, "by": by}) + "\n")
        self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def note(self, task: int, round_: int, proposed: Sequence[Candidate], reasons: Sequence[Reason | None]) -> None:
        """Write down what was proposed for a task in a round, and why what was turned down."""
        told = [{**asdict(item), "why_not": reason} for item, reason in zip(proposed, reasons, strict=True)]
        self._file.write(json.dumps({"task": task, "round": round_, "proposed": told}, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self, key: str) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        # The last line may have been cut off by whatever ended the command.
        whole = [line for line in lines if line.endswith("\n")]
        try:
            head, *entries = [json.loads(line) for line in whole]
            for entry in entries:
                proposed = [Candidate(item["question"], item["answer"]) for item in entry["proposed"]]
                self.done[int(entry["task"]), int(entry["round"])] = proposed
            known = head["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("making.journal_damaged", str(self._path), reason=str(error)) from None
        if known != key:
            raise UsageError("making.journal_of_others", str(self._path))
        if len(whole) < len(lines):
            write_text(self._path, "".join(whole))


async def make_rows(
    tasks: Sequence[Task],
    judge: Judge,
    ask: Ask,
    journal: Journal,
    *,
    by: str,
    seed: int,
    parallel: int,
    advance: Advance,
) -> Made:
    """Let a model do tasks.

    Requests run beside each other, so many at a time; replies are judged in the order of the tasks, so that the same
    replies make the same file.

    Args:
        tasks: the tasks.
        judge: says what is kept.
        ask: asks the model.
        journal: what was asked before, and where it is noted.
        by: name of the model, for the rows.
        seed: every request has a seed of its own that follows from it.
        parallel: requests at the same time.
        advance: is told how many rows there are, and how many are wanted.

    Raises:
        EngineError: the model cannot be asked; the journal has what was done until then.
    """
    made = Made()
    got = [0] * len(tasks)
    wanted = sum(task.wanted for task in tasks)
    for round_ in range(ROUNDS):
        open_ = [number for number, task in enumerate(tasks) if got[number] < task.wanted]
        for start in range(0, len(open_), parallel):
            some = open_[start : start + parallel]
            replies = await _replies(tasks, some, round_, ask, journal, seed)
            for number in some:
                task = tasks[number]
                known = journal.done.get((number, round_))
                proposed = candidates(task, replies[number]) if known is None else known
                made.asked += 1
                reasons = [_judged(made, judge, task, item, by, got, number) for item in proposed]
                if known is None:
                    journal.note(number, round_, proposed, reasons)
            advance(sum(got), wanted)
    lacking = [task.wanted - count for task, count in zip(tasks, got, strict=True) if count < task.wanted]
    made.short, made.missing = len(lacking), sum(lacking)
    return made


async def _replies(
    tasks: Sequence[Task], numbers: Sequence[int], round_: int, ask: Ask, journal: Journal, seed: int
) -> dict[int, str]:
    fresh = [number for number in numbers if (number, round_) not in journal.done]
    async with asyncio.TaskGroup() as group:
        asked = {
            number: group.create_task(_asked(ask, tasks[number], seed + round_ * len(tasks) + number))
            for number in fresh
        }
    return {number: task.result() for number, task in asked.items()}


async def _asked(ask: Ask, task: Task, seed: int) -> str:
    return await ask(task.messages, task.room, seed)


def _judged(
    made: Made, judge: Judge, task: Task, proposal: Candidate, by: str, got: list[int], number: int
) -> Reason | None:
    """Judge a proposal and keep it, or note why not; more than were wanted are welcome."""
    reason = judge.why_not(task, proposal)
    if reason is None:
        judge.take(task, proposal)
        made.rows.append(made_row(task, proposal, by))
        got[number] += 1
        return None
    made.turned_down[reason] += 1
    if sum(told == reason for told, _, _ in made.examples) < _SHOWN:
        made.examples.append((reason, proposal.question, proposal.answer))
    return reason


def write_made(path: Path, made: Made) -> None:
    """Write the rows that were kept, at once or not at all."""
    write_text(path, lines_of_rows(made.rows))

"""Rows that a model has made, in a file: written, read again, and marked by the person who reviews them.

A row that nobody has reviewed is not accepted, and so never learned. Not for showing rows (``cli``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from danlu.data.making.replies import Candidate
from danlu.data.making.tasks import Task
from danlu.data.rows import stream_rows
from danlu.errors import DataError
from danlu.files import write_text

# Fields of made rows that say where they come from; they are for people, and nothing is learned of them.
MARKS: Final = frozenset({"made", "reviewed", "source", "heading", "page"})


def made_row(task: Task, candidate: Candidate, by: str) -> dict[str, Any]:
    """Return a proposal as a row of the file: marked, not reviewed, not accepted.

    Args:
        task: what it was written for.
        candidate: the proposal.
        by: the model that wrote it.
    """
    made: dict[str, Any] = {"kind": task.kind, "by": by}
    if task.passage is not None:
        passage = task.passage
        made |= {"file": passage.file, "passage": passage.text}
        made |= {"heading": " / ".join(passage.headings)} if passage.headings else {}
        made |= {"page": passage.page} if passage.page is not None else {}
    elif task.of:
        made |= {"row": task.of, "question": task.question, "answer": task.answer}
    row: dict[str, Any] = {"instruction": candidate.question, "output": candidate.answer}
    if task.system:
        row["system"] = task.system
    return {**row, "accepted": False, "reviewed": False, "made": made}


@dataclass
class Reviewed:
    """A file of made rows.

    Attributes:
        path: the file.
        rows: its rows as they stand there.
    """

    path: Path
    rows: list[dict[str, Any]]

    @classmethod
    def open(cls, path: Path) -> Reviewed:
        """Read a file.

        Raises:
            DataError: it cannot be read, or holds rows that no model has made.
        """
        rows: list[dict[str, Any]] = []
        for row in stream_rows(path):
            if not isinstance(row.values.get("made"), dict):
                raise DataError("making.not_made", f"{path.name}, {row.index}")
            rows.append(dict(row.values))
        return cls(path, rows)

    @property
    def waiting(self) -> list[int]:
        """Numbers of the rows that nobody has reviewed, from 0."""
        return [number for number, row in enumerate(self.rows) if row.get("reviewed") is not True]

    @property
    def accepted(self) -> int:
        """Rows that are accepted."""
        return sum(row.get("accepted") is True for row in self.rows)

    def mark(self, numbers: Sequence[int], *, accept: bool) -> None:
        """Mark rows as reviewed, and write the file anew."""
        for number in numbers:
            self.rows[number] |= {"accepted": accept, "reviewed": True}
        self.save()

    def edit(self, number: int, question: str, answer: str) -> None:
        """Take over what a person has written instead, and accept it."""
        self.rows[number] |= {"instruction": question, "output": answer}
        self.mark([number], accept=True)

    def save(self) -> None:
        """Write the file, at once or not at all."""
        write_text(self.path, lines_of_rows(self.rows))


def lines_of_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

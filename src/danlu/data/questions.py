"""A question: what is asked, without an answer. ``danlu pseudo-label`` lets a trained model answer them.

Not for how rows become one (``formats.plain``), nor for questions that measure a model (``evaluation.probes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from danlu.data.rows import JsonValue
from danlu.models.messages import Message


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        messages: the turns in order; the last one is the user's.
        fields: ``instruction`` and, where the row has them, ``input``, ``system`` and ``history``, as they stand there.
        row: number of the row it came from, from 1.
        line: line of the file that row begins on, from 1.
    """

    messages: tuple[Message, ...]
    fields: Mapping[str, JsonValue]
    row: int
    line: int

"""What a run says of answers that a model wrote (``labelling``) and that are now among what is learned."""

from __future__ import annotations

from collections.abc import Sequence

from danlu.data.conversations import Conversation
from danlu.data.datasets import Dataset
from danlu.errors import DataError
from danlu.planning.plan import Notice


def require_measurable(dataset: Dataset) -> None:
    """Check that nothing a model wrote would be measured on.

    Raises:
        DataError: some of it was; the message names the first row.
    """
    pseudo = [item for item in (*dataset.conversations, *dataset.left_out) if item.pseudo]
    if pseudo:
        raise DataError("data.pseudo_measured", dataset.name, rows=len(pseudo), first=min(item.row for item in pseudo))


def pseudo_notices(read: int, pseudo: Sequence[Conversation], left_out: int) -> tuple[Notice, ...]:
    """Say how many answers a model wrote, and what became of them.

    Args:
        read: answers of a model among what was read to be learned.
        pseudo: those of them that are learned; the others are answers to questions kept aside.
        left_out: rows whose answer was not accepted.
    """
    notices = []
    if pseudo:
        mean = sum(item.weight for item in pseudo) / len(pseudo)
        params: dict[str, str | int | float] = {"rows": len(pseudo), "weight": round(mean, 2)}
        notices.append(Notice(code="planning.notice_pseudo", params=params))
    if left_out:
        notices.append(Notice(code="planning.notice_left_out", params={"rows": left_out}))
    copies = read - len(pseudo)
    if copies:
        notices.append(Notice(code="planning.notice_pseudo_copies", params={"rows": copies}))
    return tuple(notices)

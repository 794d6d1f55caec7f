"""A worker without its process, for tests of what commands say: the same work, the same messages, no seconds to start.

Signals, ends without a word and what libraries print on standard output are those of the real one's tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from danlu.errors import DanluError
from danlu.i18n import use_language
from danlu.jobs.forge_child import Stopping, work
from danlu.jobs.forge_order import Order
from danlu.jobs.messages import TOLD, Refused, Told


class WorkerHere:
    """Does an order in this process; the order and every message cross the border as JSON all the same."""

    def __init__(self, order: Order) -> None:
        self.order = Order.model_validate_json(order.model_dump_json())

    def messages(self) -> Iterator[Told]:
        """Do the order, then yield what was told.

        Raises:
            DanluError: the work's own error, as it comes out of its message.
        """
        lines: list[str] = []
        with use_language(self.order.lang):
            try:
                work(self.order, lambda message: lines.append(message.model_dump_json()), Stopping())
            except DanluError as error:
                lines.append(Refused.of(error).model_dump_json())
        for line in lines:
            message = TOLD.validate_json(line)
            if isinstance(message, Refused):
                raise message.to_error()
            yield message

    def ask_to_stop(self) -> None:
        """Ctrl-C is for the real worker."""
        raise AssertionError("a test of interruptions needs the real worker")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

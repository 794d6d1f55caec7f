"""Parquet and Arrow files, batch by batch, as data set hubs and other programs write them."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from typing import Any, Final

from danlu.data.sources.base import JsonValue, Member, Read
from danlu.errors import DataError

_BATCH: Final = 1000


def arrow_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of a Parquet file or of an Arrow file (IPC file or stream, Feather); lines are rows, from 1.

    Cells without a value are left out of a row. Dates and times become ISO 8601, decimals and the like become text.

    Raises:
        DataError: pyarrow is not installed, the file is damaged, or a column holds what is no text.
    """
    try:
        import pyarrow
    except ImportError:
        raise DataError("files.needs_pyarrow", member.shown) from None
    number = 0
    try:
        for batch, done in _batches(member):
            member.position.done = int(done * member.path.stat().st_size)
            for values in batch.to_pylist():
                number += 1
                yield (
                    number,
                    {name: plain(member, value, number) for name, value in values.items() if value is not None},
                )
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError("files.bad_arrow", member.shown, reason=reason) from None


def plain(member: Member, value: Any, line: int) -> JsonValue:
    """Return a value of a column as JSON has it: dates as ISO 8601, anything else that JSON lacks as text.

    Raises:
        DataError: it is a picture, a sound, or other bytes.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(member, inner, line) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(member, inner, line) for inner in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID):
        return str(value)
    raise DataError("files.no_text_in_cell", member.at(line), kind=type(value).__name__)


def _batches(member: Member) -> Iterator[tuple[Any, float]]:
    """Go through the batches, each with the part of the file that is read with it, from 0 to 1."""
    import pyarrow
    from pyarrow import ipc, parquet

    with member.path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"PAR1"):
        with parquet.ParquetFile(member.path) as table:
            rows = 0
            total = max(table.metadata.num_rows, 1)
            for batch in table.iter_batches(batch_size=_BATCH):
                rows += batch.num_rows
                yield batch, rows / total
        return
    with pyarrow.memory_map(str(member.path)) as source:
        if head == b"ARROW1":
            reader = ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = iter(ipc.open_stream(source))
        size = max(source.size(), 1)
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH), min(source.tell() / size, 1.0)

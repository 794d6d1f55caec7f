"""Parquet and Arrow files, batch by batch, as data set hubs and other programs write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from danlu.data.sources.base import Member, Read
from danlu.data.sources.tables import plain
from danlu.errors import DataError

_BATCH: Final = 1000


def arrow_rows(member: Member) -> Iterator[Read]:
    """Go through the rows of a Parquet file or of an Arrow file (IPC file or stream, Feather); lines are rows, from 1.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """
    try:
        import pyarrow
    except ImportError:
        raise DataError("files.needs_pyarrow", member.shown) from None
    number = 0
    try:
        for batch in _batches(member):
            for values in batch.to_pylist():
                number += 1
                yield number, {name: plain(value) for name, value in values.items() if value is not None}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("files.bad_arrow", member.shown, reason=str(error).splitlines()[0]) from None


def _batches(member: Member) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc, parquet

    with member.path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"PAR1"):
        with parquet.ParquetFile(member.path) as table:
            yield from table.iter_batches(batch_size=_BATCH)
        return
    with pyarrow.memory_map(str(member.path)) as source:
        if head == b"ARROW1":
            reader = ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = iter(ipc.open_stream(source))
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH)

"""Reads HTTP as uvicorn does, and understands an address typed in Chinese.

``curl "http://127.0.0.1:8000/answer?prompt=你是谁"`` sends the characters as they are. RFC 9112 wants them written as
``%E4…``, h11 refuses anything else, and whoever typed that would learn only that the request is invalid. Here they are
rewritten before h11 sees them. A header may carry such bytes by the RFC; nothing but the first line is changed.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_from_bytes

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Every byte that a request line may hold already, so that only what h11 would refuse is rewritten.
_ASCII: Final = bytes(range(0x80)).decode("ascii")


class Utf8TargetProtocol(H11Protocol):
    """uvicorn's protocol on h11, with bytes above ASCII in the request line percent-encoded."""

    def data_received(self, data: bytes) -> None:
        """Receive what has arrived."""
        if self.conn.their_state is h11.IDLE and b"\n" not in self.conn.trailing_data[0]:
            line, newline, rest = data.partition(b"\n")
            data = quote_from_bytes(line, safe=_ASCII).encode("ascii") + newline + rest
        super().data_received(data)

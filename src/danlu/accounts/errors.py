"""Why a caller is turned away: without a key, or having used what it may use."""

from __future__ import annotations

from typing import ClassVar, Literal

from danlu.errors import DanluError

QuotaCode = Literal["rate_limit_exceeded", "insufficient_quota"]


class NoKeyError(DanluError):
    """A key is needed and there is none, or the one that was sent is not valid (any more)."""

    status: ClassVar[int] = 401


class QuotaError(DanluError):
    """A key has used what it may use.

    Attributes:
        retry_after: seconds until there is more.
        code: OpenAI's word for it.
    """

    status: ClassVar[int] = 429

    def __init__(self, key: str, /, *, retry_after: int, code: QuotaCode, **params: object) -> None:
        super().__init__(key, None, retry_after=retry_after, **params)
        self.retry_after = retry_after
        self.code = code

"""Errors for people: what happened, where, and what to do, in the reader's language.

Every error that a user may meet is a ``DanluError``. Its texts stand in the catalogues under its key; the command
line prints ``message()``, the server returns ``problem()`` (RFC 9457). Anything else that escapes is a defect.
"""

from __future__ import annotations

from typing import ClassVar, TypedDict

from danlu.i18n import Language, t


class Problem(TypedDict):
    """An error as ``application/problem+json``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str | None
    fix: str


class DanluError(Exception):
    """An error with a remedy.

    Args:
        key: catalogue key of the texts, for example ``data.not_json``.
        where: place, ready to print: ``persona.json, row 12, field output``.
        **params: values of the placeholders in the texts.
    """

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, key: str, /, where: str | None = None, **params: object) -> None:
        self.key = key
        self.where = where
        self.params = params
        super().__init__(key, where, params)

    def what(self, lang: Language | None = None) -> str:
        """Return the sentence that says what happened."""
        return t(f"{self.key}.what", lang, **self.params)

    def fix(self, lang: Language | None = None) -> str:
        """Return the sentence that says what to do about it."""
        return t(f"{self.key}.fix", lang, **self.params)

    def message(self, lang: Language | None = None) -> str:
        """Return one line: where, what happened, what to do."""
        place = f"{self.where}: " if self.where else ""
        return " ".join(f"{place}{self.what(lang)} {self.fix(lang)}".splitlines())

    def problem(self, lang: Language | None = None) -> Problem:
        """Return the error as the body of a problem document."""
        return {
            "type": f"about:blank#{self.key}",
            "title": self.what(lang),
            "status": self.status,
            "detail": self.message(lang),
            "code": self.key,
            "where": self.where,
            "fix": self.fix(lang),
        }

    def __str__(self) -> str:
        return self.message()


class UsageError(DanluError):
    """The caller asked for something that makes no sense (exit code 2, HTTP 400)."""

    status = 400
    exit_code = 2


class RecipeError(DanluError):
    """The recipe, or an override of it, cannot be read or is out of range."""

    status = 422


class DataError(DanluError):
    """A data file or row cannot be used."""

    status = 422


class ModelError(DanluError):
    """A model folder, its weights or its tokenizer cannot be used."""

    status = 422


class DownloadError(DanluError):
    """A model could not be fetched from its source."""

    status = 502


class TrainingError(DanluError):
    """A run cannot start or cannot go on."""


class ExportError(DanluError):
    """Weights could not be written, or do not agree with their source."""


class EngineError(DanluError):
    """An engine did not start, ended, or answered with an error."""

    status = 502


class EngineTimeoutError(EngineError):
    """An engine did not answer in time."""

    status = 504


class PluginError(DanluError):
    """A plug-in is missing, cannot be imported, or is not what it says."""

    status = 422


class BusyError(DanluError):
    """The queue is full; ``retry_after`` says in how many seconds to try again."""

    status = 503

    def __init__(self, key: str, /, where: str | None = None, *, retry_after: int, **params: object) -> None:
        super().__init__(key, where, retry_after=retry_after, **params)
        self.retry_after = retry_after


class NotFoundError(DanluError):
    """The named thing does not exist."""

    status = 404


class ConflictError(DanluError):
    """The thing is in use or was changed by someone else."""

    status = 409


class TooLargeError(DanluError):
    """The request or the prompt is larger than allowed."""

    status = 413


class MachineError(DanluError):
    """The machine lacks something: disk, memory, a port, a processor feature."""

    status = 507


class StoreError(DanluError):
    """The database cannot be opened, or was made by a newer version."""

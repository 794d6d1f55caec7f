"""What a check found, gathered: so many of a kind are listed one by one, and all of them are counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from danlu.data.formats.base import Kind
from danlu.data.rows import Row
from danlu.errors import DanluError
from danlu.i18n import t

Severity = Literal["error", "warning", "info"]
# So many of a kind are listed with their rows; the others are counted (a million lines help nobody).
LISTED: Final = 1000
_ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "info")


class DataProblem(BaseModel):
    """One problem of a row, or of the file (row 0); ``file`` is the row's own in a folder or an archive, or empty."""

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    row: int
    line: int
    field: str | None
    message: str
    fix: str
    file: str = ""


class ProblemGroup(BaseModel):
    """All problems of a kind.

    ``listed`` of them stand among the problems; ``repair`` is what ``danlu data repair --only`` calls them, where a
    repair is safe.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    count: int
    listed: int
    repair: str | None = None


class TokenReport(BaseModel):
    """Lengths in tokens under one model's chat format."""

    model_config = ConfigDict(frozen=True)

    total: int
    supervised: int
    p50: int
    p95: int
    max: int


class FileRead(BaseModel):
    """What files were read as: a kind in words, and the encoding (empty where the kind has none)."""

    model_config = ConfigDict(frozen=True)

    kind: str
    encoding: str


class DataReport(BaseModel):
    """What ``danlu data check`` says.

    ``files`` has each kind and encoding that was read once; ``notices`` are sentences about what people may not expect
    of their files, such as another encoding than UTF-8 or files that were passed over.
    ``leaks`` counts rows that ask what the data set measured on asks (``--against``), and is None where none is named.
    ``characters`` counts plain texts and is None for anything else.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    row_format: str
    kind: Kind
    rows: int
    usable: int
    verdict: str
    problems: tuple[DataProblem, ...]
    groups: tuple[ProblemGroup, ...]
    tokens: TokenReport | None
    duplicates: int
    leaks: int | None
    characters: int | None = None
    files: tuple[FileRead, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass
class Findings:
    """Gathers problems.

    Attributes:
        repairs: the repair of each kind that has one.
    """

    repairs: dict[str, str] = field(default_factory=dict)
    _listed: dict[str, list[DataProblem]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _severities: dict[str, Severity] = field(default_factory=dict)

    def add(
        self, code: str, severity: Severity, row: int = 0, line: int = 0, field: str | None = None, **params: object
    ) -> None:
        """Note a problem; its texts stand in the catalogue under its code."""
        self._count(code, severity)
        if self._counts[code] <= LISTED:
            what, fix = t(f"{code}.what", **params), t(f"{code}.fix", **params)
            self._note(DataProblem(
                code=code, severity=severity, row=row, line=line, field=field, message=what, fix=fix,
            ))  # fmt: skip

    def refused(self, error: DanluError, row: Row) -> None:
        """Note a row that cannot be used, and why."""
        self._count(error.key, "error")
        if self._counts[error.key] <= LISTED:
            named = error.params.get("field")
            self._note(DataProblem(
                code=error.key, severity="error", row=row.index, line=row.line, field=str(named) if named else None,
                message=error.what(), fix=error.fix(),
            ))  # fmt: skip

    def count(self, code: str) -> int:
        """Return how many of a kind were noted."""
        return self._counts[code]

    @property
    def problems(self) -> tuple[DataProblem, ...]:
        """Those that are listed, kind after kind in the order in which the kinds came up."""
        return tuple(problem for listed in self._listed.values() for problem in listed)

    @property
    def groups(self) -> tuple[ProblemGroup, ...]:
        """All kinds, the gravest first, of as grave ones the most frequent first."""
        made = [
            ProblemGroup(
                code=code,
                severity=self._severities[code],
                count=count,
                listed=len(self._listed[code]),
                repair=self.repairs.get(code),
            )
            for code, count in self._counts.items()
        ]
        return tuple(sorted(made, key=lambda group: (_ORDER.index(group.severity), -group.count)))

    def _count(self, code: str, severity: Severity) -> None:
        self._counts[code] += 1
        self._severities[code] = severity

    def _note(self, problem: DataProblem) -> None:
        self._listed.setdefault(problem.code, []).append(problem)

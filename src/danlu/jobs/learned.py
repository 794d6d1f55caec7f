"""Which runs have learned from a version of a data set, or were measured on it. Not for the data sets themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from danlu.data.manifest import DatasetManifest
from danlu.errors import ConflictError, TrainingError
from danlu.jobs.runs import Runs

_NAMED = 5


@dataclass(frozen=True)
class Learned:
    """The runs that need versions of data sets.

    Attributes:
        runs: names of runs, newest first, by the name and version of the data set.
        unreadable: runs whose plan cannot be read, so that what they need is not known.
    """

    runs: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def of(self, manifest: DatasetManifest) -> list[str]:
        """Return the runs that need a version, newest first."""
        return self.runs.get((manifest.name, manifest.version), [])


def learned_from(runs: Runs) -> Learned:
    """Look through the plans of all runs."""
    found = Learned()
    for run in runs.list():
        try:
            plan = run.plan()
        except TrainingError:
            found.unreadable.append(run.name)
            continue
        needed = [*plan.datasets, *plan.unlabelled, *([plan.holdout_dataset] if plan.holdout_dataset else [])]
        for key in dict.fromkeys((item.name, item.version) for item in needed):
            found.runs.setdefault(key, []).append(run.name)
    return found


def require_unneeded(named: str, versions: Iterable[DatasetManifest], runs: Runs) -> None:
    """Check that no run needs versions that are to be removed.

    Args:
        named: what is to be removed, as it was typed.
        versions: the versions.
        runs: the runs.

    Raises:
        ConflictError: one does; the message names it.
    """
    learned = learned_from(runs)
    needed = list(dict.fromkeys(run for version in versions for run in learned.of(version)))
    if needed:
        shown = ", ".join(needed[:_NAMED]) + (" …" if len(needed) > _NAMED else "")
        raise ConflictError("versions.needed", named, count=len(needed), runs=shown)

"""Finds the model version that a name on the command line means, and makes it when only its source is there."""

from __future__ import annotations

from pathlib import Path

from danlu.cli.forge import carry_out
from danlu.errors import ConflictError, NotFoundError
from danlu.i18n import language
from danlu.jobs.forge_order import Order
from danlu.jobs.runs import Runs
from danlu.models.catalogue import catalogue
from danlu.models.library import ModelLibrary
from danlu.models.versions import ModelVersion, list_versions, load_version
from danlu.settings import Home


def version_for(home: Home, name: str) -> ModelVersion:
    """Return the version that a name means: a version, a finished run, or a base model.

    A run that was only trained is exported first, without a proof; so is a base model, which is pulled if missing.

    Raises:
        NotFoundError: there is nothing of this name.
        TrainingError: the run has not finished.
        DanluError: the model or the export cannot be used.
    """
    versions = list_versions(home.versions)
    for version in versions:
        untouched_folder = version.run is None and version.base.source == f"folder:{Path(name).resolve()}"
        if name in {version.id, version.run, version.name} or untouched_folder:
            return version
    if any(run.name == name for run in Runs(home).list()):
        return _made(home, Order(task="publish", home=home.root, lang=language(), run=name))
    if _is_model(home, name):
        return _made(home, Order(task="base", home=home.root, lang=language(), model=name))
    known = ", ".join(version.id for version in versions[:3]) or "–"
    raise NotFoundError("cli.unknown_version", name=name, known=known)


def _made(home: Home, order: Order) -> ModelVersion:
    display = carry_out(order)
    if display.version is None:
        raise ConflictError("cli.stopped_elsewhere", display.run)
    return load_version(home.versions / display.version)


def _is_model(home: Home, name: str) -> bool:
    known = {entry.name for entry in catalogue()} | set(ModelLibrary(home).names())
    return name in known or (Path(name) / "config.json").is_file()

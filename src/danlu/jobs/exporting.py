"""Exports a finished run into a folder of the user's; for the command line and, later, the server."""

from __future__ import annotations

from pathlib import Path

from danlu.errors import TrainingError
from danlu.export.deliver import ExportResult, ExportSource, export_to
from danlu.jobs.material import chat_format_of
from danlu.jobs.preparing import set_up_process
from danlu.jobs.runs import RunFolder
from danlu.models.library import ModelLibrary
from danlu.settings import Home


def export_run(home: Home, run: RunFolder, directory: Path, kind: str, quant: str) -> ExportResult:
    """Write a finished run's weights, checked against the run.

    Raises:
        TrainingError: the run has not finished.
        ExportError: the format cannot express the model, or the export does not agree with it.
        ConflictError: the folder has something in it.
    """
    set_up_process()
    if run.trained is None:
        raise TrainingError("jobs.not_finished", run.name, run=run.name)
    plan = run.plan()
    base = ModelLibrary(home).ensure(run.recipe().model)
    source = ExportSource(
        name=plan.datasets[0].name,
        base=base.path,
        base_name=base.name,
        adapter=run.trained,
        tokenizer=run.tokenizer or base.path,
        chat_format=chat_format_of(run.tokenizer or base.path, plan.system, plan.thinking),
    )
    return export_to(source, directory, kind, quant)

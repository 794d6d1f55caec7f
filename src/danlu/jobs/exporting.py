"""Exports a finished run into a folder of the user's; for the command line and, later, the server."""

from __future__ import annotations

from pathlib import Path

from danlu.errors import TrainingError
from danlu.export.deliver import ExportResult, ExportSource, export_to
from danlu.export.model_card import CardFacts
from danlu.jobs.material import chat_format_of
from danlu.jobs.preparing import set_up_process
from danlu.jobs.runs import RunFolder
from danlu.models.catalogue import catalogue
from danlu.models.library import ModelFolder, ModelLibrary
from danlu.models.versions import list_versions
from danlu.planning.plan import Plan
from danlu.settings import Home


def export_run(home: Home, run: RunFolder, directory: Path, kind: str, quant: str | None) -> ExportResult:
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
        facts=_facts(home, run, plan, base),
    )
    return export_to(source, directory, kind, quant)


def _facts(home: Home, run: RunFolder, plan: Plan, base: ModelFolder) -> CardFacts:
    """Return what the model card says of a run."""
    report, settings = run.report(), plan.settings
    version = next((item for item in list_versions(home.versions) if item.run == run.name), None)
    chosen = {
        "objective": plan.objective,
        "epochs": f"{plan.epochs:g}",
        "learning_rate": f"{settings.learning_rate:g}",
        "batch_size": str(settings.batch_size),
        "steps": str(report.steps if report is not None else settings.steps),
        "max_length": str(plan.max_length),
        "dtype": settings.dtype,
        "seed": str(settings.seed),
    }
    if settings.method in {"lora", "qlora"}:
        chosen |= {"lora.r": str(settings.lora.r), "lora.lora_alpha": f"{settings.lora.lora_alpha:g}"}
    licences = {entry.name: entry.license for entry in catalogue()}
    return CardFacts(
        name=plan.datasets[0].name,
        base=base.name,
        # A path of this machine would say nothing to whoever gets the folder.
        base_source=None if base.source.startswith("folder:") else base.source,
        licence=licences.get(base.name),
        run=run.name,
        datasets=plan.datasets,
        rows=plan.data.train,
        method=settings.method,
        settings=tuple(chosen.items()),
        loss_before=report.heldout_loss_before if report is not None else None,
        loss_after=report.heldout_loss if report is not None else None,
        proof=version.proof if version is not None else None,
    )

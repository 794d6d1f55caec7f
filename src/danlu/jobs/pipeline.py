"""From a prepared run to a model version, in the process that calls it: train, proof, export.

``forge_child`` runs it in a process of its own and tells the caller what happens. Not for showing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftModel

from danlu.errors import DanluError, TrainingError
from danlu.evaluation.general import Before, general_examples
from danlu.evaluation.judged import JudgedProof
from danlu.evaluation.proof import TextProof, prove
from danlu.evaluation.report import Comparison, write_report
from danlu.evaluation.result import Proof
from danlu.events import Event, EventLog, Failed, Finished, LoggedEvent, Planned, Warned
from danlu.export.publish import register_version
from danlu.files import read_as, write_text
from danlu.i18n import t
from danlu.jobs.messages import (
    Happened,
    Note,
    Proved,
    Published,
    Tell,
    Trained,
    pull_teller,
)
from danlu.jobs.preparing import Prepared, load_base, set_up_process, stage
from danlu.jobs.runs import RunFolder, TrainReport, prediction_error
from danlu.jobs.trackers.tracking import tracking
from danlu.jobs.watching import asker, questions_of
from danlu.models.base_template import fit_template
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelLibrary
from danlu.models.versions import ModelVersion, ProofSummary
from danlu.settings import Home
from danlu.training.adapter import changes_base, load_finished
from danlu.training.curves import findings
from danlu.training.forward import LossModel
from danlu.training.loop import Job, fit
from danlu.training.objectives import Objective
from danlu.training.plugged import objective_named
from danlu.training.preferences import Reference
from danlu.training.ranks.base import Ranks
from danlu.training.trained import TrainedModel, adapter_off, load_trained

_GENERAL_FEW = 12
_GENERAL = 30
# Sequences of learned text that are measured where none was kept aside.
_LEARNED_MEASURED = 16
_QUESTIONS_SHOWN = 5
_REFERENCE = "reference.safetensors"


def train(
    prepared: Prepared,
    tell: Tell,
    should_stop: Callable[[], bool],
    *,
    resume: bool = False,
    ranks: Ranks | None = None,
) -> TrainReport:
    """Train a prepared run, writing its events.

    Args:
        prepared: the run.
        tell: receives what happens.
        should_stop: asked after each step.
        resume: go on from the newest checkpoint.
        ranks: the processes that train together, of which this is the first and the others call ``help_train``.

    Raises:
        DanluError: what ended the run; it stands in the event log too.
    """
    run, plan = prepared.run, prepared.plan
    run.stop_file.unlink(missing_ok=True)

    def asked_to_stop() -> bool:
        return should_stop() or run.stop_file.exists()

    with run.locked(), EventLog(run.events_path) as log, stage(tell, "train", "jobs.stage_train"):

        def write(event: Event) -> LoggedEvent:
            logged = log.append(event)
            tell(Happened(event=event))
            return logged

        def emit_judged(event: Event) -> None:
            """Say before the end what the curves of the whole run say, those before an interruption included."""
            if isinstance(event, Finished):
                for finding in findings(item.event for item in run.events()):
                    emit(Warned(code=finding.code, message=finding.text()))
            emit(event)

        def tell_where(text: str) -> None:
            tell(Note(text=text))

        with tracking(prepared.home, run.path, prepared.recipe, plan, write, tell_where) as emit:
            if plan.prediction is not None and not resume:
                emit(
                    Planned(
                        predicted_seconds=plan.prediction.predicted_seconds,
                        predicted_peak_rss_bytes=plan.prediction.predicted_peak_rss_bytes,
                        steps=plan.settings.steps,
                    )
                )
            try:
                job = _job(prepared, tell)
                if ranks is not None:
                    ranks.agree(None)  # what the others read is written now
                result = fit(prepared.model, job, plan.settings, emit_judged, asked_to_stop, resume=resume, ranks=ranks)
            except DanluError as error:
                # The log may be what could not be written (a full disk): the error itself goes on either way.
                _emit_failure(emit, error)
                raise
    report = TrainReport(
        run=run.name,
        status=result.status,
        steps=result.steps,
        epochs=round(result.steps * plan.settings.batch_size / max(job.rows, 1), 3),
        train_loss=result.train_loss,
        heldout_loss_before=result.heldout_loss_before,
        heldout_loss=result.heldout_loss,
        examples_per_second=result.examples_per_second,
        tokens_per_second=result.tokens_per_second,
        seconds=result.seconds,
        peak_rss_bytes=result.peak_rss_bytes,
        plan=plan.prediction,
        prediction_error=prediction_error(
            plan.prediction,
            steps=result.steps,
            planned_steps=plan.settings.steps,
            seconds=result.seconds,
            peak_rss_bytes=result.peak_rss_bytes,
        ),
        adapter=str(run.adapter) if run.adapter.is_dir() else None,
        weights=None if run.trained in {None, run.adapter} else str(run.trained),
    )
    write_text(run.path / "report.json", report.model_dump_json(indent=2) + "\n")
    tell(Trained(report=report))
    return report


def help_train(prepared: Prepared, ranks: Ranks, *, resume: bool = False) -> None:
    """Train together with the process that calls ``train``, without a word."""
    ranks.agree(None)
    job = _job(prepared, lambda _: None)
    fit(prepared.model, job, prepared.plan.settings, lambda _: None, resume=resume, ranks=ranks)


def _job(prepared: Prepared, tell: Tell) -> Job:
    return Job(
        prepared.examples,
        prepared.heldout,
        prepared.run.path,
        prepared.base.name,
        asker(prepared),
        _objective(prepared, tell),
        continued=prepared.plan.continued_from is not None,
    )


def prove_run(prepared: Prepared, tell: Tell, *, aside: bool = False) -> Proof:
    """Measure a finished run against its base and write ``proof.json`` and ``report.html``.

    Args:
        prepared: the run.
        tell: receives what happens.
        aside: it is measured on other questions or examples than its own: they go into a folder under ``evals/``
            and the run's own proof stays.

    Raises:
        TrainingError: the run has no adapter yet.
    """
    run, plan = prepared.run, prepared.plan
    model = finished_model(prepared)
    report = run.report()
    known = None
    if not aside and report is not None and report.heldout_loss is not None and report.heldout_loss_before is not None:
        known = (report.heldout_loss_before, report.heldout_loss)
    with stage(tell, "eval", "jobs.stage_eval"):
        limit = _GENERAL_FEW if plan.objective == "sft" and plan.data.train <= 20 else _GENERAL
        texts = _text_proof(prepared)
        judged = _judged_proof(prepared)
        learned = (texts is not None and texts.learned) or (judged is not None and judged.learned)
        proof = prove(
            model,
            _before(prepared, model),
            prepared.chat_format,
            prepared.probes,
            prepared.examples[:_LEARNED_MEASURED] if learned else prepared.heldout,
            general_examples(prepared.chat_format, limit=limit),
            plan.settings.token_budget,
            unseen=prepared.unseen,
            texts=texts,
            judged=judged,
            known_losses=known,
            progress=lambda key: tell(Note(text=t(key))),
        )
        folder = run.path / "evals" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}" if aside else run.path
        if not aside:
            proof = proof.model_copy(update={"findings": findings(item.event for item in run.events())})
        written = Proved(proof=folder / "proof.json", report=folder / "report.html")
        write_text(written.proof, proof.model_dump_json(indent=2) + "\n")
        write_report(written.report, proof, run.name, run.events(), prediction=_predicted_and_taken(run))
    tell(written)
    return proof


def proof_of(run: RunFolder) -> Proof | None:
    """Return the proof that a run has already been given, or None."""
    path = run.path / "proof.json"
    return read_as(Proof, path) if path.is_file() else None


def publish_base(home: Home, name: str, tell: Tell, quant: str = "q8_0") -> ModelVersion:
    """Make a version of a base model as it is, so that it can be talked to.

    Raises:
        ExportError: the export does not agree with the model; nothing is registered.
    """
    set_up_process()
    home.make()
    with stage(tell, "model", "jobs.stage_model", name=name):
        base = ModelLibrary(home).ensure(name, pull_teller(tell))
    with stage(tell, "export", "jobs.stage_export"), TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tokenizer"
        template = fit_template(base.path, folder, "auto")
        if template is not None:
            tell(Note(text=t("templates.note_given", name=template.name, end=template.token)))
        tokenizer = base.path if template is None else folder
        version = register_version(
            home,
            name=base.name,
            base=base,
            adapter=None,
            chat_format=ChatFormat.load(tokenizer),
            formats=("gguf",),
            quant=quant,
            tokenizer=tokenizer,
        )
        _note_agreement(version, tell)
    tell(Published(version=version.id))
    return version


def publish(prepared: Prepared, proof: Proof | None, tell: Tell, quant: str = "q8_0") -> ModelVersion:
    """Export a finished run, check that the export agrees with it, and register it as a model version.

    Args:
        prepared: the run.
        proof: its proof, whose figures go into the version; None for none.
        tell: receives what happens.
        quant: weights format of the export.

    Raises:
        ExportError: the export does not agree with its source; nothing is registered.
    """
    model = finished_model(prepared)
    plan = prepared.plan
    with stage(tell, "export", "jobs.stage_export"):
        version = register_version(
            prepared.home,
            name=plan.datasets[0].name,
            base=prepared.base,
            adapter=prepared.run.trained,
            run=prepared.run.name,
            datasets=plan.datasets,
            chat_format=prepared.chat_format,
            formats=("gguf", "adapter") if prepared.run.adapter.is_dir() else ("gguf",),
            quant=quant,
            proof=None if proof is None else _summary(proof),
            model=model,
            continued_from=plan.continued_from,
            tokenizer=prepared.run.tokenizer,
            new_tokens=plan.new_tokens,
        )
        _note_agreement(version, tell)
    tell(Published(version=version.id))
    return version


def _predicted_and_taken(run: RunFolder) -> Comparison | None:
    """Return what was predicted of a run and what it took, for its report."""
    report = run.report()
    if report is None or report.plan is None or report.prediction_error is None:
        return None
    return Comparison(
        predicted_seconds=report.plan.predicted_seconds * report.steps / run.plan().settings.steps,
        seconds=report.seconds,
        predicted_bytes=report.plan.predicted_peak_rss_bytes,
        peak_bytes=report.peak_rss_bytes,
    )


def _summary(proof: Proof) -> ProofSummary:
    return ProofSummary(
        heldout_loss_before=proof.heldout.loss_before,
        heldout_loss_after=proof.heldout.loss_after,
        probes_n=proof.probes.n,
        pass_before=proof.probes.pass_before,
        pass_after=proof.probes.pass_after,
    )


def _note_agreement(version: ModelVersion, tell: Tell) -> None:
    export = version.export("gguf")
    if export is not None and export.agreement is not None:
        tell(Note(text=t("jobs.note_agreement", **export.agreement.model_dump())))


def _text_proof(prepared: Prepared) -> TextProof | None:
    if prepared.document_format is None:
        return None
    return TextProof(prepared.document_format, prepared.openings, learned=not prepared.heldout)


def _judged_proof(prepared: Prepared) -> JudgedProof | None:
    settings = prepared.plan.settings.preference
    if settings is None:
        return None
    return JudgedProof(settings, questions_of(prepared, _QUESTIONS_SHOWN), learned=not prepared.heldout)


def _objective(prepared: Prepared, tell: Tell) -> Objective:
    """Return what is learned; of judged answers with the scores of the model as it is before the first step."""
    plan = prepared.plan
    preference = plan.settings.preference
    examples = [] if preference is None else [*prepared.examples, *prepared.heldout]
    reference = Reference.unmeasured(examples)
    if preference is not None and preference.referenced:
        tell(Note(text=t("jobs.note_reference", examples=len(examples))))
        losses = LossModel(prepared.model, share_prefix=plan.settings.share_prefix)
        reference = Reference.kept(prepared.run.path / _REFERENCE, losses, examples, plan.settings.token_budget)
    return objective_named(plan.objective, plan.settings, reference)


def finished_model(prepared: Prepared) -> TrainedModel:
    """Return the model as it came out; an adapter switched off leaves the base as it is on the disk."""
    trained = prepared.run.trained
    if trained is None:
        raise TrainingError("jobs.not_finished", prepared.run.name, run=prepared.run.name)
    if isinstance(prepared.model, PeftModel) and changes_base(prepared.model):
        return load_finished(load_base(prepared.base, prepared.run, prepared.plan, whole=True), trained)
    load_trained(prepared.model, trained)
    return prepared.model


def _before(prepared: Prepared, model: TrainedModel) -> Before:
    """Return what gives the base: the model without its adapter, or, where it was changed itself, the base anew."""
    if isinstance(model, PeftModel):
        return lambda: adapter_off(model)
    base = load_base(prepared.base, prepared.run, prepared.plan)
    return lambda: nullcontext(base)


def _emit_failure(emit: Callable[[Event], None], error: DanluError) -> None:
    try:
        emit(Failed(code=error.key, message=error.message()))
    except DanluError as second:
        error.add_note(second.message())

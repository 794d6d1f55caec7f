"""The path from a recipe to a model version, in the process that calls it: model, data, plan, train, proof, export.

``forge_child`` runs it in a process of its own and tells the caller what happens. Not for showing anything.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel

from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary, DatasetManifest
from danlu.data.encode import count_tokens, encode, require_fitting
from danlu.data.examples import Example
from danlu.data.split import Split, split_holdout
from danlu.errors import DanluError, DataError, TrainingError
from danlu.evaluation.general import general_examples
from danlu.evaluation.generate import answer_all
from danlu.evaluation.probes import Probe, probes_from, read_probes
from danlu.evaluation.proof import prove
from danlu.evaluation.report import write_report
from danlu.evaluation.result import Proof
from danlu.events import Event, EventLog, Failed, Planned, SampleAnswer
from danlu.export.publish import register_version
from danlu.files import require_free, write_text
from danlu.hardware import Machine, inspect_machine, physical_cores
from danlu.i18n import t
from danlu.jobs.messages import (
    Advance,
    Happened,
    Note,
    PlanMade,
    Published,
    Stage,
    StageBegan,
    StageEnded,
    Told,
    Trained,
)
from danlu.jobs.runs import RunFolder, Runs, TrainReport
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelFolder, ModelLibrary
from danlu.models.load import load_model
from danlu.models.sources.base import Progress
from danlu.models.versions import DatasetRef, ModelVersion, ProofSummary, Thinking
from danlu.planning.estimate import predict
from danlu.planning.facts import DataFacts, model_facts
from danlu.planning.plan import Plan, decide_holdout, make_plan, require_built
from danlu.recipe import Recipe, with_absolute_paths
from danlu.settings import Home
from danlu.training.adapter import attach_lora, load_adapter_weights
from danlu.training.loop import Job, fit
from danlu.training.memory import keep_freed_memory

Tell = Callable[[Told], None]

_PROBES_MADE = 10
_PROBES_WATCHED = 2
_WATCHED_TOKENS = 32
_GENERAL_FEW = 12
_GENERAL = 30
# Room for checkpoints (an adapter and its optimizer state, three at a time), the adapter and the report.
_RUN_BYTES = 500_000_000


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to be trained.

    Attributes:
        home: the home folder.
        run: its folder, with recipe and plan written.
        recipe: what the person wants.
        plan: every value decided.
        base: the base model's folder.
        model: the base model with a fresh adapter.
        chat_format: how conversations are written.
        split: conversations to learn from and to measure on.
        examples: the first, encoded.
        heldout: the second, encoded.
        probes: questions to ask before and after.
        unseen: whether none of the probes is a question of the training data.
    """

    home: Home
    run: RunFolder
    recipe: Recipe
    plan: Plan
    base: ModelFolder
    model: PeftModel
    chat_format: ChatFormat
    split: Split
    examples: Sequence[Example]
    heldout: Sequence[Example]
    probes: Sequence[Probe]
    unseen: bool


def prepare(home: Home, recipe: Recipe, tell: Tell, *, predict_cost: bool = True) -> Prepared:
    """Get the model, read the data, decide the plan and write it into a new run folder.

    Raises:
        DanluError: whatever cannot be used, with its place and remedy.
    """
    require_built(recipe)
    recipe = with_absolute_paths(recipe)
    set_up_process()
    home.make()
    library = DatasetLibrary(home.datasets)
    with _stage(tell, "data", "jobs.stage_data"):
        manifests = [library.register(name) for name in recipe.data.train]
        for manifest in manifests:
            tell(Note(text=t("jobs.note_data", name=manifest.name, rows=manifest.rows, version=manifest.version)))
    with _stage(tell, "model", "jobs.stage_model", name=recipe.model):
        base = ModelLibrary(home).ensure(recipe.model, _progress_teller(tell))
    with _stage(tell, "plan", "jobs.stage_plan"):
        require_free(home.runs, _RUN_BYTES)
        machine = inspect_machine(home.cache)
        chat_format = chat_format_of(base, recipe.system)
        conversations = _conversations(library, manifests)
        share = decide_holdout(recipe, len(conversations))
        split = split_holdout(conversations, float(share.value or 0), recipe.train.seed)
        plan = _plan(recipe, base, machine, manifests, split, chat_format)
        with _new_run(home, manifests[0].name) as run:
            prepared = _assemble(home, run, recipe, plan, base, chat_format, split)
            if predict_cost:
                prediction = predict(prepared.model, prepared.examples, prepared.heldout, plan.settings)
                plan = plan.model_copy(update={"prediction": prediction})
            run.write(recipe, plan)
    tell(PlanMade(run=prepared.run.name, plan=plan))
    return replace(prepared, plan=plan)


def reopen(home: Home, name: str, tell: Tell, probes: Path | None = None) -> Prepared:
    """Load a run as it was planned, for resuming or proving it.

    Args:
        home: the home folder.
        name: the run's name.
        tell: receives what happens.
        probes: probe file to use instead of the recipe's.

    Raises:
        NotFoundError: no such run, or its data set is gone.
    """
    set_up_process()
    run = Runs(home).get(name)
    plan, recipe = run.plan(), run.recipe()
    if probes is not None:
        recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probes": str(probes)})})
    library = DatasetLibrary(home.datasets)
    with _stage(tell, "model", "jobs.stage_model", name=plan.model):
        base = ModelLibrary(home).ensure(recipe.model, _progress_teller(tell))
        conversations = [
            item for ref in plan.datasets for item in library.open_version(ref.name, ref.version).conversations
        ]
        split = split_holdout(conversations, plan.holdout_share, plan.settings.seed)
        prepared = _assemble(home, run, recipe, plan, base, chat_format_of(base, plan.system), split)
    tell(PlanMade(run=run.name, plan=plan))
    return prepared


def train(prepared: Prepared, tell: Tell, should_stop: Callable[[], bool], *, resume: bool = False) -> TrainReport:
    """Train a prepared run, writing its events.

    Raises:
        DanluError: what ended the run; it stands in the event log too.
    """
    run, plan = prepared.run, prepared.plan
    run.stop_file.unlink(missing_ok=True)

    def asked_to_stop() -> bool:
        return should_stop() or run.stop_file.exists()

    with run.locked(), EventLog(run.events_path) as log, _stage(tell, "train", "jobs.stage_train"):

        def emit(event: Event) -> None:
            log.append(event)
            tell(Happened(event=event))

        if plan.prediction is not None and not resume:
            emit(
                Planned(
                    predicted_seconds=plan.prediction.predicted_seconds,
                    predicted_peak_rss_bytes=plan.prediction.predicted_peak_rss_bytes,
                    steps=plan.settings.steps,
                )
            )
        job = Job(prepared.examples, prepared.heldout, run.path, prepared.base.name, _asker(prepared))
        try:
            result = fit(prepared.model, job, plan.settings, emit, asked_to_stop, resume=resume)
        except DanluError as error:
            # The log may be what could not be written (a full disk): the error itself goes on either way.
            _emit_failure(emit, error)
            raise
    report = TrainReport(
        run=run.name,
        status=result.status,
        steps=result.steps,
        epochs=round(result.steps * plan.settings.batch_size / max(len(prepared.examples), 1), 3),
        train_loss=result.train_loss,
        heldout_loss_before=result.heldout_loss_before,
        heldout_loss=result.heldout_loss,
        examples_per_second=result.examples_per_second,
        tokens_per_second=result.tokens_per_second,
        seconds=result.seconds,
        peak_rss_bytes=result.peak_rss_bytes,
        plan=plan.prediction,
        adapter=str(run.adapter) if result.status == "finished" else None,
    )
    write_text(run.path / "report.json", report.model_dump_json(indent=2) + "\n")
    tell(Trained(report=report))
    return report


def prove_run(prepared: Prepared, tell: Tell) -> Proof:
    """Measure a finished run against its base and write ``proof.json`` and ``report.html``.

    Raises:
        TrainingError: the run has no adapter yet.
    """
    run, plan = prepared.run, prepared.plan
    _load_finished(prepared)
    report = run.report()
    known = None
    if report is not None and report.heldout_loss is not None and report.heldout_loss_before is not None:
        known = (report.heldout_loss_before, report.heldout_loss)
    with _stage(tell, "eval", "jobs.stage_eval"):
        limit = _GENERAL_FEW if plan.data.train <= 20 else _GENERAL
        proof = prove(
            prepared.model,
            prepared.chat_format,
            prepared.probes,
            prepared.heldout,
            general_examples(prepared.chat_format, limit=limit),
            plan.settings.token_budget,
            unseen=prepared.unseen,
            known_losses=known,
            progress=lambda key: tell(Note(text=t(key))),
        )
        write_text(run.path / "proof.json", proof.model_dump_json(indent=2) + "\n")
        write_report(run.path / "report.html", proof, run.name, run.events())
    return proof


def publish(prepared: Prepared, proof: Proof, tell: Tell, quant: str = "q8_0") -> ModelVersion:
    """Export a finished run, check that the export agrees with it, and register it as a model version.

    Raises:
        ExportError: the export does not agree with its source; nothing is registered.
    """
    _load_finished(prepared)
    plan = prepared.plan
    with _stage(tell, "export", "jobs.stage_export"):
        version = register_version(
            prepared.home,
            name=plan.datasets[0].name,
            base=prepared.base,
            adapter=prepared.run.adapter,
            run=prepared.run.name,
            datasets=plan.datasets,
            chat_format=prepared.chat_format,
            formats=("gguf", "adapter"),
            quant=quant,
            proof=ProofSummary(
                heldout_loss_before=proof.heldout.loss_before,
                heldout_loss_after=proof.heldout.loss_after,
                probes_n=proof.probes.n,
                pass_before=proof.probes.pass_before,
                pass_after=proof.probes.pass_after,
            ),
            model=prepared.model,
        )
        export = version.export("gguf")
        if export is not None and export.agreement is not None:
            tell(Note(text=t("jobs.note_agreement", **export.agreement.model_dump())))
    tell(Published(version=version.id))
    return version


def set_up_process() -> None:
    """Set what a process that computes needs: one thread a physical core (unless set), and memory that is kept."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())
    keep_freed_memory()
    # Said by transformers about itself, nothing a user could do.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _plan(
    recipe: Recipe,
    base: ModelFolder,
    machine: Machine,
    manifests: Sequence[DatasetManifest],
    split: Split,
    chat_format: ChatFormat,
) -> Plan:
    examples = encode(split.train, chat_format)
    if not examples:
        raise DataError("data.no_rows", ", ".join(recipe.data.train))
    facts = DataFacts(
        rows=len(split.train) + len(split.holdout),
        train=len(examples),
        holdout=len(split.holdout),
        tokens=count_tokens(examples),
    )
    datasets = tuple(DatasetRef(name=item.name, version=item.version, sha256=item.sha256) for item in manifests)
    share = decide_holdout(recipe, facts.rows)
    return make_plan(recipe, model_facts(base.name, base.path), facts, machine, datasets, share)


def _assemble(
    home: Home,
    run: RunFolder,
    recipe: Recipe,
    plan: Plan,
    base: ModelFolder,
    chat_format: ChatFormat,
    split: Split,
) -> Prepared:
    examples = encode(split.train, chat_format)
    heldout = encode(split.holdout, chat_format)
    for part in (examples, heldout):
        require_fitting(part, plan.max_length, plan.datasets[0].name)
    probes, unseen = _probes(recipe, split, plan.settings.seed)
    model = attach_lora(load_model(base.path, plan.settings.dtype), plan.settings.lora, plan.settings.seed)
    return Prepared(home, run, recipe, plan, base, model, chat_format, split, examples, heldout, probes, unseen)


def _probes(recipe: Recipe, split: Split, seed: int) -> tuple[list[Probe], bool]:
    """Take the recipe's probes, or make some of the held-out rows, or else of the rows themselves."""
    if recipe.eval.probes is not None:
        asked = read_probes(Path(recipe.eval.probes))
        known = {conversation.question for conversation in split.train}
        return asked, not any(probe.question in known for probe in asked)
    if split.holdout:
        return probes_from(split.holdout, _PROBES_MADE, seed), True
    return probes_from(split.train, _PROBES_MADE, seed), False


def _asker(prepared: Prepared) -> Callable[[PeftModel], tuple[SampleAnswer, ...]]:
    watched = prepared.probes[:_PROBES_WATCHED]

    def ask(model: PeftModel) -> tuple[SampleAnswer, ...]:
        answers = answer_all(model, prepared.chat_format, [probe.messages for probe in watched], _WATCHED_TOKENS)
        return tuple(
            SampleAnswer(question=probe.question, answer=answer, passed=probe.passes(answer))
            for probe, answer in zip(watched, answers, strict=True)
        )

    return ask


def _load_finished(prepared: Prepared) -> None:
    if not prepared.run.adapter.is_dir():
        raise TrainingError("jobs.not_finished", prepared.run.name, run=prepared.run.name)
    load_adapter_weights(prepared.model, prepared.run.adapter)


def _conversations(library: DatasetLibrary, manifests: Sequence[DatasetManifest]) -> list[Conversation]:
    return [
        conversation
        for manifest in manifests
        for conversation in library.open_version(manifest.name, manifest.version).conversations
    ]


def chat_format_of(base: ModelFolder, system: str) -> ChatFormat:
    """Return the chat format that runs on a base model train with.

    Plain answers are learned after an empty think block that is not learned, and served the same way.
    """
    plain = ChatFormat.load(base.path, system)
    thinking: Thinking = "off" if plain.can_think else "auto"
    return ChatFormat.load(base.path, system, thinking)


def _emit_failure(emit: Callable[[Event], None], error: DanluError) -> None:
    try:
        emit(Failed(code=error.key, message=error.message()))
    except DanluError as second:
        error.add_note(second.message())


def _progress_teller(tell: Tell) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.note:
            tell(Note(text=progress.note))
        elif progress.done or progress.total:
            tell(Advance(text=t(f"jobs.pull_{progress.stage}"), done=progress.done, total=progress.total))

    return report


@contextmanager
def _new_run(home: Home, stem: str) -> Iterator[RunFolder]:
    """Give a new run folder, which goes away again when its plan does not come to be."""
    run = Runs(home).new(stem)
    try:
        yield run
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


@contextmanager
def _stage(tell: Tell, stage: Stage, key: str, **params: object) -> Iterator[None]:
    tell(StageBegan(stage=stage, text=t(key, **params)))
    start = time.perf_counter()
    yield
    tell(StageEnded(stage=stage, seconds=time.perf_counter() - start))

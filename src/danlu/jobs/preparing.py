"""Gets a run ready: the model, the examples, the decided plan, in the process that will train.

``pipeline`` goes on from here. Not for showing anything.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel

from danlu.data.datasets import DatasetLibrary, require_kind
from danlu.data.encode import require_fitting
from danlu.data.examples import Example
from danlu.data.manifest import DatasetManifest
from danlu.data.mixture import MixPart
from danlu.data.reading import Reading
from danlu.data.split import Split
from danlu.errors import ModelError
from danlu.evaluation.openings import Opening
from danlu.evaluation.probes import Probe
from danlu.files import require_free
from danlu.hardware import Machine, inspect_machine, physical_cores
from danlu.i18n import t
from danlu.jobs.continuing import Start, find_start, fit_recipe, keep_start, kept_start, require_base
from danlu.jobs.encoding import encoder_of
from danlu.jobs.gathered import shares_of
from danlu.jobs.material import Decided, Material, decide_material, planned_material, probes_of
from danlu.jobs.messages import (
    Note,
    PlanMade,
    Stage,
    StageBegan,
    StageEnded,
    Tell,
    pull_teller,
)
from danlu.jobs.mixing import register_unlabelled, with_texts
from danlu.jobs.runs import RunFolder, Runs
from danlu.jobs.trackers.tracking import require_trackers
from danlu.models.base_template import fit_template
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat
from danlu.models.fingerprint import fingerprint
from danlu.models.library import ModelFolder, ModelLibrary
from danlu.models.load import load_config, load_model
from danlu.models.new_tokens import begin_as_means, pieces_of, write_tokenizer
from danlu.models.versions import DatasetRef
from danlu.planning.devices import decide_devices
from danlu.planning.estimate import predict
from danlu.planning.form import decide_form
from danlu.planning.plan import MixedData, Notice, Plan, make_plan, with_probed_rate
from danlu.planning.probe import probe_rate
from danlu.planning.requirements import require_built
from danlu.planning.rules import disk_needed
from danlu.planning.semi_rules import decide_semi
from danlu.planning.sharing import decide_sharing
from danlu.recipe import Recipe, with_absolute_paths
from danlu.settings import Home
from danlu.training.forward import has_fast_path
from danlu.training.guarding import memory_errors
from danlu.training.memory import keep_freed_memory
from danlu.training.objectives import Objective
from danlu.training.plugged import objective_named, require_objective
from danlu.training.preferences import Reference
from danlu.training.trained import TrainedModel, attach

WATCHED_TOKENS: Final = 24
"""Longest answer in tokens at a measurement: enough to see where it goes."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to be trained.

    Attributes:
        home: the home folder.
        run: its folder, with recipe and plan written.
        recipe: what the person wants.
        plan: every value decided.
        base: the base model's folder.
        model: the base model, ready to be trained.
        chat_format: how conversations are written.
        split: conversations to learn from and to measure on; none when plain texts are learned.
        examples: what is learned.
        heldout: what is measured on; may be empty.
        probes: questions to ask before and after; may be empty.
        unseen: whether none of the probes is a question of the training data.
        document_format: how plain texts are written, when those are learned; else None.
        openings: beginnings of texts to go on with; none of conversations.
    """

    home: Home
    run: RunFolder
    recipe: Recipe
    plan: Plan
    base: ModelFolder
    model: TrainedModel
    chat_format: ChatFormat
    split: Split
    examples: Sequence[Example]
    heldout: Sequence[Example]
    probes: Sequence[Probe]
    unseen: bool
    document_format: DocumentFormat | None = None
    openings: Sequence[Opening] = ()


def prepare(home: Home, recipe: Recipe, tell: Tell, *, predict_cost: bool = True) -> Prepared:
    """Get the model, read the data, decide the plan and write it into a new run folder.

    Raises:
        DanluError: whatever cannot be used, with its place and remedy.
    """
    require_built(recipe)
    require_trackers(recipe)
    require_objective(recipe.objective)
    recipe = with_absolute_paths(recipe)
    set_up_process()
    home.make()
    start = find_start(home, recipe)
    recipe = fit_recipe(recipe, start)
    shares_of(recipe)  # a mistake is said before data are read
    library = DatasetLibrary(home.datasets)
    with stage(tell, "data", "jobs.stage_data"):
        reading = Reading(fill=recipe.data.fill)
        manifests = [library.register(name, reading) for name in recipe.data.train]
        named = recipe.data.holdout
        aside = library.register(named, reading) if isinstance(named, str) and named != "auto" else None
        for manifest in (*manifests, *([] if aside is None else [aside])):
            require_kind(manifest.name, manifest.kind, recipe.objective)
            tell(Note(text=_about(manifest)))
        unlabelled = register_unlabelled(library, recipe.data.unlabelled, reading)
        for manifest in unlabelled:
            tell(Note(text=_about(manifest)))
    with stage(tell, "model", "jobs.stage_model", name=recipe.model):
        base = ModelLibrary(home).ensure(recipe.model, pull_teller(tell))
        if start is not None:
            require_base(start, base)
    with stage(tell, "plan", "jobs.stage_plan"):
        machine = inspect_machine(home.cache)
        encoder = encoder_of(home, tell)
        datasets = tuple(_ref(item) for item in manifests)
        measured = None if aside is None else _ref(aside)
        with _new_run(home, manifests[0].name) as run:
            if recipe.new_tokens:
                write_tokenizer(base.path, recipe.new_tokens, run.path / "tokenizer")
            template = fit_template(base.path, run.path / "tokenizer", recipe.chat_template)
            decided = decide_material(recipe, base, machine, library, encoder, datasets, measured, run.tokenizer)
            plan = _decide(recipe, base, machine, datasets, decided, measured, start, run)
            plan = plan.model_copy(update={"notices": (*plan.notices, *_left_out([*manifests, *unlabelled]))})
            plan = decide_form(plan, recipe, template, can_think=decided.material.chat_format.can_think)
            plan = plan.model_copy(update={"unlabelled": tuple(_ref(item) for item in unlabelled)})
            material = with_texts(decided.material, plan, recipe, library, encoder)
            if plan.unlabelled:
                plan = decide_semi(plan, recipe, material.examples)
            fast_path = has_fast_path(load_config(base.path))
            plan = decide_sharing(plan, recipe, material.examples, fast_path=fast_path)
            plan = decide_devices(plan, recipe, base, machine)
            require_free(home.runs, disk_needed(plan.settings, base.architecture))
            if start is not None:
                keep_start(start, run)
            prepared = _assemble(home, run, recipe, plan, base, material)
            if predict_cost and plan.together is None:
                with memory_errors(t("jobs.at_plan")):
                    prediction = predict(
                        prepared.model,
                        prepared.examples,
                        prepared.heldout,
                        plan.settings,
                        _unmeasured(prepared),
                        answered_tokens=WATCHED_TOKENS if prepared.probes or prepared.openings else 0,
                    )
                plan = plan.model_copy(update={"prediction": prediction})
            if recipe.train.learning_rate == "probe":
                tell(Note(text=t("jobs.note_probe")))
                with memory_errors("train.learning_rate"):
                    probe = probe_rate(
                        prepared.model, prepared.examples, prepared.heldout, plan.settings, _unmeasured(prepared)
                    )
                plan = with_probed_rate(plan, probe)
            run.write(recipe, plan)
    tell(PlanMade(run=prepared.run.name, plan=plan))
    return replace(prepared, plan=plan)


def _decide(
    recipe: Recipe,
    base: ModelFolder,
    machine: Machine,
    datasets: tuple[DatasetRef, ...],
    decided: Decided,
    measured: DatasetRef | None,
    start: Start | None,
    run: RunFolder,
) -> Plan:
    """Make the plan, and note in it what the run is built on."""
    material = decided.material
    thinking, notices = material.chat_format.thinking, decided.notices
    plan = make_plan(recipe, base, material.facts, machine, datasets, decided.holdout, thinking, notices, measured)
    ids = pieces_of(base.path, run.tokenizer or base.path, recipe.new_tokens)
    more = [] if start is None else [_goes_on(start)]
    if ids:
        more.append(Notice(code="planning.notice_new_tokens", params={"count": len(ids)}))
    return plan.model_copy(
        update={
            "settings": plan.settings.model_copy(update={"new_token_ids": tuple(ids)}),
            "base_fingerprint": fingerprint(base.path),
            "mix": _mix(datasets, material.mix),
            "continued_from": None if start is None else start.origin,
            "new_tokens": recipe.new_tokens,
            "notices": (*plan.notices, *more),
        }
    )


def reopen(home: Home, name: str, tell: Tell, probes: Path | None = None, data: str | None = None) -> Prepared:
    """Load a run as it was planned, for resuming or proving it.

    Args:
        home: the home folder.
        name: the run's name.
        tell: receives what happens.
        probes: probe file to use instead of the recipe's.
        data: data set, or file, to measure on instead of what was kept aside.

    Raises:
        NotFoundError: no such run, or its data set is gone.
        RecipeError: it needs a package that is not installed any more.
        ModelError: the weights of its base model have changed.
    """
    set_up_process()
    run = Runs(home).get(name)
    plan, recipe = run.plan(), run.recipe()
    require_built(recipe)  # the packages of a machine may have changed since
    if probes is not None:
        recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probes": str(probes)})})
    library = DatasetLibrary(home.datasets)
    with stage(tell, "model", "jobs.stage_model", name=plan.model):
        base = ModelLibrary(home).ensure(recipe.model, pull_teller(tell))
        if plan.base_fingerprint not in {None, fingerprint(base.path)}:
            raise ModelError("jobs.base_changed", str(base.path), run=name)
        encoder = encoder_of(home, tell)
        material = planned_material(plan, recipe, base, library, encoder, data, run.tokenizer)
        material = with_texts(material, plan, recipe, library, encoder)
        if data is not None and probes is None:
            recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probes": None})})
        prepared = _assemble(home, run, recipe, plan, base, material)
    tell(PlanMade(run=run.name, plan=plan))
    return prepared


def _unmeasured(prepared: Prepared) -> Objective:
    """Return what is learned, for measuring its cost: of judged answers without the scores they are compared with."""
    plan = prepared.plan
    examples = prepared.examples if plan.settings.preference is not None else ()
    return objective_named(plan.objective, plan.settings, Reference.unmeasured(examples))


def set_up_process() -> None:
    """Set what a process that computes needs: one thread a physical core (unless set), and memory that is kept."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())
    keep_freed_memory()
    # Said by transformers about itself, nothing a user could do.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _assemble(
    home: Home, run: RunFolder, recipe: Recipe, plan: Plan, base: ModelFolder, material: Material
) -> Prepared:
    for part in (material.examples, material.heldout):
        require_fitting(part, plan.max_length, plan.datasets[0].name)
    probes, unseen = probes_of(recipe, material, plan.settings.seed)
    return Prepared(
        home=home,
        run=run,
        recipe=recipe,
        plan=plan,
        base=base,
        model=attach(load_base(base, run, plan), plan.settings, kept_start(run)),
        chat_format=material.chat_format,
        split=material.split,
        examples=material.examples,
        heldout=material.heldout,
        probes=probes,
        unseen=unseen,
        document_format=material.document_format,
        openings=material.openings,
    )


def load_base(base: ModelFolder, run: RunFolder, plan: Plan, *, whole: bool = False) -> PreTrainedModel:
    """Load the base model of a run, with rows for the run's new tokens as they begin.

    Args:
        base: its folder.
        run: the run.
        plan: its plan.
        whole: in its own precision although the run keeps it in few bits.
    """
    settings = plan.settings
    bits = settings.lora.quantization_bit if settings.method == "qlora" and not whole else None
    model = load_model(base.path, settings.dtype, bits=bits)
    if plan.new_tokens:
        begin_as_means(model, pieces_of(base.path, run.tokenizer or base.path, plan.new_tokens))
    return model


def _mix(datasets: Sequence[DatasetRef], parts: Sequence[MixPart]) -> tuple[MixedData, ...]:
    """Return how much of each data set is learned in an epoch; nothing where one is learned as it is."""
    if len(parts) < 2 and all(part.share.plain for part in parts):
        return ()
    whole = sum(part.drawn for part in parts)
    return tuple(
        MixedData(
            name=ref.name,
            version=ref.version,
            rows=part.rows,
            weight=part.share.weight,
            samples=part.share.samples,
            drawn=part.drawn,
            share=part.drawn / whole,
        )
        for ref, part in zip(datasets, parts, strict=True)
    )


def _left_out(manifests: Sequence[DatasetManifest]) -> tuple[Notice, ...]:
    """Say which rows of files were left out when they were registered."""
    return tuple(
        Notice(
            code="versions.notice_left_out",
            params={"name": item.name, "count": sum(item.unusable.values()), "rows": item.rows},
        )
        for item in manifests
        if item.unusable
    )


def _ref(manifest: DatasetManifest) -> DatasetRef:
    return DatasetRef(name=manifest.name, version=manifest.version, sha256=manifest.sha256)


def _goes_on(start: Start) -> Notice:
    return Notice(code="planning.notice_continued", params={"name": start.origin.name, "r": start.config["r"]})


def _about(manifest: DatasetManifest) -> str:
    keys = {
        "conversations": "jobs.note_data",
        "texts": "jobs.note_texts",
        "preferences": "jobs.note_pairs",
        "labels": "jobs.note_labels",
        "questions": "jobs.note_questions",
    }
    return t(keys[manifest.kind], name=manifest.name, rows=manifest.rows, version=manifest.version)


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
def stage(tell: Tell, stage: Stage, key: str, **params: object) -> Iterator[None]:
    """Tell that a part of the work begins and, when it ends well, how long it took."""
    tell(StageBegan(stage=stage, text=t(key, **params)))
    start = time.perf_counter()
    yield
    tell(StageEnded(stage=stage, seconds=time.perf_counter() - start))

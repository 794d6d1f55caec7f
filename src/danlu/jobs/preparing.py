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

import torch
from peft import PeftModel

from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary
from danlu.data.encode import count_tokens, encode, require_fitting
from danlu.data.examples import Example
from danlu.data.split import Split, normalise, split_holdout
from danlu.errors import DataError
from danlu.evaluation.probes import Probe, probes_from, read_probes
from danlu.files import require_free
from danlu.hardware import inspect_machine, physical_cores
from danlu.i18n import t
from danlu.jobs.messages import (
    Note,
    PlanMade,
    Stage,
    StageBegan,
    StageEnded,
    Tell,
    pull_teller,
)
from danlu.jobs.runs import RunFolder, Runs
from danlu.jobs.trackers.tracking import require_trackers
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelFolder, ModelLibrary
from danlu.models.load import load_model
from danlu.models.versions import DatasetRef, Thinking
from danlu.planning.estimate import predict
from danlu.planning.facts import DataFacts
from danlu.planning.plan import Plan, decide_holdout, decide_thinking, make_plan, require_built
from danlu.recipe import Recipe, with_absolute_paths
from danlu.settings import Home
from danlu.training.adapter import attach_lora
from danlu.training.memory import keep_freed_memory

_PROBES_MADE = 10
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
    require_trackers(recipe)
    recipe = with_absolute_paths(recipe)
    set_up_process()
    home.make()
    library = DatasetLibrary(home.datasets)
    with stage(tell, "data", "jobs.stage_data"):
        manifests = [library.register(name) for name in recipe.data.train]
        for manifest in manifests:
            tell(Note(text=t("jobs.note_data", name=manifest.name, rows=manifest.rows, version=manifest.version)))
    with stage(tell, "model", "jobs.stage_model", name=recipe.model):
        base = ModelLibrary(home).ensure(recipe.model, pull_teller(tell))
    with stage(tell, "plan", "jobs.stage_plan"):
        require_free(home.runs, _RUN_BYTES)
        machine = inspect_machine(home.cache)
        datasets = tuple(DatasetRef(name=item.name, version=item.version, sha256=item.sha256) for item in manifests)
        conversations = _conversations(library, datasets)
        share = decide_holdout(recipe, len(conversations))
        chat_format, notices = decide_thinking(ChatFormat.load(base.path, recipe.system), conversations)
        encoded = _Encoded.of(conversations, float(share.value or 0), recipe.train.seed, chat_format)
        if not encoded.examples:
            raise DataError("data.no_rows", ", ".join(recipe.data.train))
        plan = make_plan(recipe, base, encoded.facts(), machine, datasets, share, chat_format.thinking, notices)
        with _new_run(home, manifests[0].name) as run:
            prepared = _assemble(home, run, recipe, plan, base, encoded)
            if predict_cost:
                prediction = predict(prepared.model, prepared.examples, prepared.heldout, plan.settings)
                plan = plan.model_copy(update={"prediction": prediction})
            run.write(recipe, plan)
    tell(PlanMade(run=prepared.run.name, plan=plan))
    return replace(prepared, plan=plan)


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
    """
    set_up_process()
    run = Runs(home).get(name)
    plan, recipe = run.plan(), run.recipe()
    if probes is not None:
        recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probes": str(probes)})})
    library = DatasetLibrary(home.datasets)
    with stage(tell, "model", "jobs.stage_model", name=plan.model):
        base = ModelLibrary(home).ensure(recipe.model, pull_teller(tell))
        chat_format = chat_format_of(base, plan.system, plan.thinking)
        conversations = _conversations(library, plan.datasets)
        encoded = _Encoded.of(conversations, plan.holdout_share, plan.settings.seed, chat_format)
        if data is not None:
            encoded = encoded.measured_on(library.open(data).conversations)
            if probes is None:
                recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probes": None})})
        prepared = _assemble(home, run, recipe, plan, base, encoded)
    tell(PlanMade(run=run.name, plan=plan))
    return prepared


def set_up_process() -> None:
    """Set what a process that computes needs: one thread a physical core (unless set), and memory that is kept."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())
    keep_freed_memory()
    # Said by transformers about itself, nothing a user could do.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class _Encoded:
    """The split conversations as examples of one chat format."""

    split: Split
    chat_format: ChatFormat
    examples: Sequence[Example]
    heldout: Sequence[Example]

    @classmethod
    def of(cls, conversations: Sequence[Conversation], share: float, seed: int, chat_format: ChatFormat) -> _Encoded:
        split = split_holdout(conversations, share, seed)
        return cls(split, chat_format, encode(split.train, chat_format), encode(split.holdout, chat_format))

    def measured_on(self, conversations: Sequence[Conversation]) -> _Encoded:
        split = Split(self.split.train, tuple(conversations))
        return replace(self, split=split, heldout=encode(conversations, self.chat_format))

    def facts(self) -> DataFacts:
        return DataFacts(
            rows=len(self.split.train) + len(self.split.holdout),
            train=len(self.examples),
            holdout=len(self.split.holdout),
            tokens=count_tokens(self.examples),
        )


def _assemble(home: Home, run: RunFolder, recipe: Recipe, plan: Plan, base: ModelFolder, encoded: _Encoded) -> Prepared:
    for part in (encoded.examples, encoded.heldout):
        require_fitting(part, plan.max_length, plan.datasets[0].name)
    probes, unseen = _probes(recipe, encoded.split, plan.settings.seed)
    return Prepared(
        home=home,
        run=run,
        recipe=recipe,
        plan=plan,
        base=base,
        model=attach_lora(load_model(base.path, plan.settings.dtype), plan.settings.lora, plan.settings.seed),
        chat_format=encoded.chat_format,
        split=encoded.split,
        examples=encoded.examples,
        heldout=encoded.heldout,
        probes=probes,
        unseen=unseen,
    )


def _probes(recipe: Recipe, split: Split, seed: int) -> tuple[list[Probe], bool]:
    """Take the recipe's probes, or make some of the held-out rows, or else of the rows themselves.

    Returns:
        The probes, and whether none of them is a question of the training data.
    """
    if recipe.eval.probes is not None:
        probes = read_probes(Path(recipe.eval.probes))
    else:
        probes = probes_from(split.holdout or split.train, _PROBES_MADE, seed)
    known = {normalise(conversation.question) for conversation in split.train}
    return probes, not any(normalise(probe.question) in known for probe in probes)


def _conversations(library: DatasetLibrary, datasets: Sequence[DatasetRef]) -> list[Conversation]:
    return [item for ref in datasets for item in library.open_version(ref.name, ref.version).conversations]


def chat_format_of(base: ModelFolder, system: str, thinking: Thinking) -> ChatFormat:
    """Return the chat format of a run on a base model; a template without think blocks has no policy."""
    plain = ChatFormat.load(base.path, system)
    return replace(plain, thinking=thinking) if plain.can_think else plain


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

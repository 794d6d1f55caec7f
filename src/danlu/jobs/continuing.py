"""An adapter that a run goes on from: found by name, checked against the base, copied into the run's folder.

The copy makes a run independent of what becomes of the other one, so that it resumes exactly. Not for putting the
adapter into the model (``training.adapter``).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from danlu.errors import ExportError, RecipeError, TrainingError
from danlu.export.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MergedWeights, read_adapter_config
from danlu.files import disk_errors, sha256_of
from danlu.jobs.runs import RunFolder, Runs
from danlu.models.base_template import TEMPLATE_FILE
from danlu.models.catalogue import of_hub
from danlu.models.fingerprint import fingerprint
from danlu.models.library import ModelFolder
from danlu.models.versions import BaseModelRef, ContinuedFrom, load_version
from danlu.recipe import Recipe
from danlu.settings import Home
from danlu.training.settings import ADAPTER_METHODS

START: Final = "start"
_FIELD: Final = "lora.adapter"
# These begin by changing the base; what they saved without being converted belongs to that changed base.
_CHANGE_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Start:
    """An adapter that has been found.

    Attributes:
        folder: where it lies.
        origin: what it is called, for the lineage.
        config: its ``adapter_config.json``.
        base: the base that it is known to belong to; None for a folder.
        new_tokens: the tokens that were added to the vocabulary it was trained with.
        template: file of the chat template it was trained with; None where only the base's own is known.
    """

    folder: Path
    origin: ContinuedFrom
    config: dict[str, Any]
    base: BaseModelRef | None = None
    new_tokens: tuple[str, ...] = ()
    template: Path | None = None


def find_start(home: Home, recipe: Recipe) -> Start | None:
    """Return the adapter that a recipe names, or None when it names none.

    Raises:
        RecipeError: there is none of this name, it is no adapter, or the method trains none.
    """
    wished = recipe.lora.adapter
    if wished is None:
        return None
    if recipe.method not in ADAPTER_METHODS:
        raise RecipeError("jobs.start_method", "method", method=recipe.method, adapter=wished)
    run = home.runs / wished
    if run.parent == home.runs and (run / "plan.json").is_file():
        return _of_run(RunFolder(run))
    version = home.versions / wished
    if version.parent == home.versions and (version / "version.json").is_file():
        return _of_version(version)
    folder = Path(wished).expanduser()
    if not (folder / ADAPTER_CONFIG).is_file():
        known = ", ".join(item.name for item in Runs(home).list() if item.adapter.is_dir()) or "–"
        raise RecipeError("jobs.start_unknown", _FIELD, adapter=wished, known=known)
    return _found(folder, "folder", str(folder.resolve()))


def fit_recipe(recipe: Recipe, start: Start | None) -> Recipe:
    """Return the recipe with the shape of the adapter it goes on from.

    Raises:
        RecipeError: it wishes for another shape; the message names the field.
    """
    if start is None:
        return recipe
    lora, config = recipe.lora, start.config
    targets = config["target_modules"]
    shape: dict[str, Any] = {
        "r": config["r"],
        "lora_alpha": float(config["lora_alpha"]),
        "target_modules": targets if isinstance(targets, str) else tuple(sorted(targets)),
        "use_rslora": bool(config.get("use_rslora")),
        "use_dora": bool(config.get("use_dora")),
    }
    for name, value in shape.items():
        wish = getattr(lora, name)
        said = set(wish) != set(value) if name == "target_modules" and not isinstance(wish, str) else wish != value
        if said and wish not in {"auto", "all-linear", False}:
            raise RecipeError("jobs.start_conflict", f"lora.{name}", wish=_shown(wish), value=_shown(value))
    if lora.init_lora_weights != "default":
        wish = lora.init_lora_weights
        raise RecipeError("jobs.start_conflict", "lora.init_lora_weights", wish=wish, value="default")
    if recipe.new_tokens and recipe.new_tokens != start.new_tokens:
        raise RecipeError(
            "jobs.start_conflict", "new_tokens", wish=_shown(recipe.new_tokens), value=_shown(start.new_tokens)
        )
    update: dict[str, Any] = {"lora": lora.model_copy(update=shape), "new_tokens": start.new_tokens}
    if start.template is not None and recipe.chat_template == "auto":
        update["chat_template"] = str(start.template)
    return recipe.model_copy(update=update)


def require_base(start: Start, base: ModelFolder) -> None:
    """Check that an adapter belongs to a base: by name and content where these are known, by shape always.

    Raises:
        RecipeError: it belongs to another one.
        ExportError: its matrices do not fit, or it is of a kind that could not be exported.
    """
    name = start.origin.name
    if start.base is not None:
        if start.base.name != base.name:
            raise RecipeError("jobs.start_base", _FIELD, adapter=name, base=start.base.name, model=base.name)
        if start.base.fingerprint not in {None, fingerprint(base.path)}:
            raise RecipeError("jobs.start_weights", _FIELD, adapter=name, model=base.name)
    else:
        stated = str(start.config.get("base_model_name_or_path") or "")
        entry = of_hub(stated)
        theirs = PurePath(stated).name if entry is None else entry.name
        # A folder may bear any name: only two different names that the catalogue knows are two models for certain.
        if entry is not None and base.source.partition(":")[0] != "folder" and theirs != base.name:
            raise RecipeError("jobs.start_base", _FIELD, adapter=name, base=stated, model=base.name)
    try:
        with MergedWeights(base.path, start.folder):
            pass
    except ExportError as error:
        if error.key != "export.adapter_misfit":
            raise
        misfit = error.params["name"]
        stated = start.config.get("base_model_name_or_path") or "?"
        raise RecipeError(
            "jobs.start_shape", _FIELD, adapter=name, model=base.name, matrix=misfit, base=stated
        ) from error


def keep_start(start: Start, run: RunFolder) -> None:
    """Copy an adapter into the folder of the run that goes on from it."""
    folder = run.path / START
    with disk_errors(folder):
        folder.mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(start.folder / name, folder / name)


def kept_start(run: RunFolder) -> Path | None:
    """Return the folder of the adapter that a run goes on from, or None."""
    folder = run.path / START
    return folder if folder.is_dir() else None


def _of_run(run: RunFolder) -> Start:
    if run.trained is None:
        raise TrainingError("jobs.not_finished", run.name, run=run.name)
    if run.trained != run.adapter:
        raise RecipeError("jobs.start_of_weights", _FIELD, run=run.name)
    plan = run.plan()
    base = BaseModelRef(name=plan.model, fingerprint=plan.base_fingerprint)
    return _found(run.adapter, "run", run.name, base, plan.new_tokens, run.tokenizer)


def _of_version(folder: Path) -> Start:
    version = load_version(folder)
    export = version.export("adapter")
    if export is None:
        raise RecipeError("jobs.start_of_weights", _FIELD, run=version.id)
    return _found(
        folder / export.path, "version", version.id, version.base, version.new_tokens, folder / version.tokenizer
    )


def _found(
    folder: Path,
    kind: Any,
    name: str,
    base: BaseModelRef | None = None,
    new_tokens: tuple[str, ...] = (),
    tokenizer: Path | None = None,
) -> Start:
    config = read_adapter_config(folder)
    began = config.get("init_lora_weights")
    if isinstance(began, str) and began.startswith(_CHANGE_BASE):
        raise RecipeError("jobs.start_changed_base", _FIELD, adapter=name, init=began)
    if config.get("trainable_token_indices") and not new_tokens:
        raise RecipeError("jobs.start_tokens", _FIELD, adapter=name)
    origin = ContinuedFrom(kind=kind, name=name, sha256=sha256_of(folder / ADAPTER_WEIGHTS))
    template = None if tokenizer is None else tokenizer / TEMPLATE_FILE
    return Start(folder, origin, config, base, new_tokens, template if template and template.is_file() else None)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "–" if isinstance(value, tuple) else str(value)

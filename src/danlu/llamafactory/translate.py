"""Turns LLaMA-Factory's keys into fields of the recipe, and keeps an account of each of them.

``keys`` says what a key is; here stand the few that must be looked at together (batch size, warm-up, quantisation,
data sets). A key is never passed over in silence: it becomes a field, or is said not to be needed and why, or it is
an error. Not for checking ranges: the recipe does that for its fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from danlu.errors import RecipeError
from danlu.i18n import t
from danlu.llamafactory.dataset_info import NAME, RowKind, entry_of, read_list, require_stage
from danlu.llamafactory.keys import KEYS, MARKS, SECRET, Becomes, Kind, NotBuilt, NotNeeded
from danlu.llamafactory.translation import Translated, Translation, show

# What LLaMA-Factory (transformers) takes for one of two factors when only the other is given.
_PER_DEVICE: Final = 8
_ACCUMULATION: Final = 1
_DATASET_DIR: Final = "data"
_BITS: Final = (4, 8)
_WEIGHTS_LEARN: Final = ("full", "freeze")
_OTHER_STAGES: Final = frozenset({"rm", "ppo", "orpo", "simpo"})
_STAGES: Final = {"sft": "sft", "pt": "pretrain", "dpo": "dpo", "kto": "kto"}
_ROWS: Final[Mapping[str, RowKind]] = {"pt": "texts", "dpo": "pairs", "kto": "labels"}
_LOSSES: Final = ("sigmoid", "ipo", "orpo")
_PREFERENCE: Final = (
    "pref_beta", "pref_ftx", "dpo_label_smoothing", "kto_chosen_weight", "kto_rejected_weight", "pref_bco_weight",
    "ld_alpha",
)  # fmt: skip
_METHODS: Final = ("lora", "full", "freeze")
_KINDS: Final[Mapping[Kind, tuple[str, tuple[type, ...]]]] = {
    "text": ("recipe.kind_text", (str,)),
    "int": ("recipe.kind_int", (int,)),
    "number": ("recipe.kind_number", (int, float)),
    "bool": ("recipe.kind_bool", (bool,)),
    "texts": ("recipe.kind_list", (str, list)),
}
_PAIR: Final = "per_device_train_batch_size × gradient_accumulation_steps"


def is_llamafactory(values: Mapping[Any, object]) -> bool:
    """Say whether a mapping is written in LLaMA-Factory's vocabulary, by the keys that only it has."""
    return any(key in values for key in MARKS)


def field_of(key: str) -> str | None:
    """Return the recipe's field that a key of LLaMA-Factory's becomes, or None."""
    known = KEYS.get(key)
    return known.field if isinstance(known, Becomes) else None


def translate(
    values: Mapping[Any, object], where: str, ours: Collection[str], words: Mapping[str, object]
) -> Translated:
    """Read every key of a file.

    Args:
        values: the file.
        where: its name, for messages.
        ours: the names that a recipe of Danlu's begins with.
        words: what was said on the command line, by field; it stands, and what it replaces is not looked up.

    Raises:
        RecipeError: a key is unknown, belongs to Danlu, has a value of the wrong kind, or asks for what is not built.
    """
    for key in values:
        if key in ours and key not in KEYS:
            theirs = next(mark for mark in MARKS if mark in values)
            raise RecipeError("llamafactory.mixed", where, theirs=theirs, ours=key)
    for key in values:
        if key not in KEYS:
            _refuse_unknown(where, str(key))
    reader = _Reader({str(key): value for key, value in values.items()}, where, words)
    reader.read()
    return Translated(values=reader.recipe, names=reader.names, translations=tuple(reader.translations))


def _refuse_unknown(where: str, key: str) -> None:
    close = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.6)
    if close:
        raise RecipeError("llamafactory.unknown_key_close", where, key=key, close=close[0])
    raise RecipeError("llamafactory.unknown_key", where, key=key)


class _Reader:
    """Goes through the keys of one file; see ``translate`` for the arguments."""

    def __init__(self, values: Mapping[str, Any], where: str, words: Mapping[str, object]) -> None:
        self.values = values
        self.where = where
        self.words = words
        self.recipe: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.translations: list[Translation] = []
        # Keys that must be looked at together with others; all the rest is read by the table alone.
        self._own: Mapping[str, Callable[[str, Any], None]] = {
            "stage": self._stage,
            "pref_loss": self._pref_loss,
            **dict.fromkeys(_PREFERENCE, self._preference),
            "finetuning_type": self._method,
            "quantization_bit": self._quantization,
            "adapter_name_or_path": self._adapter,
            "dataset": self._dataset,
            "dataset_dir": self._dataset_dir,
            "eval_dataset": self._eval_dataset,
            "val_size": self._val_size,
            "per_device_train_batch_size": self._batch_size,
            "gradient_accumulation_steps": self._batch_size,
            "num_train_epochs": self._epochs,
            "lr_scheduler_type": self._scheduler,
            "warmup_ratio": self._warmup_ratio,
            "warmup_steps": self._warmup_steps,
            "bf16": self._bf16,
            "pure_bf16": self._bf16,
            "optim": self._optim,
            "eval_steps": self._eval_steps,
            "early_stopping_steps": self._early_stopping,
            "do_predict": self._do_predict,
            "freeze_trainable_layers": self._freeze,
            "freeze_trainable_modules": self._freeze,
            "freeze_extra_modules": self._freeze,
        }

    def read(self) -> None:
        """Read all keys."""
        for key, value in self.values.items():
            known = KEYS[key]
            if isinstance(known, Becomes):
                self._check_kind(key, known.kind, value)
        for key, value in self.values.items():
            known = KEYS[key]
            if isinstance(known, Becomes):
                word = self._word_on(known.field)
                if word is not None:
                    self._note(key, value, "llamafactory.word", word=word)
                    continue
                if value is None:
                    self._note(key, value, "llamafactory.left_open", field=known.field)
                    continue
            own = self._own.get(key)
            if own is not None:
                own(key, value)
            elif isinstance(known, Becomes):
                self._become(key, value, known)
            else:
                self._have_no_field(key, value, known)

    def _become(self, key: str, value: Any, known: Becomes) -> None:
        """Give the field the value, by the table."""
        if _is_one_of(value, known.plain):
            self._note(key, value, "llamafactory.plain")
        else:
            became = _texts(value) if known.kind == "texts" else value
            if isinstance(value, str | bool):
                became = known.renamed.get(value, became)
            self._put(key, value, known.field, became, known.note)

    def _have_no_field(self, key: str, value: Any, known: NotNeeded | NotBuilt) -> None:
        if isinstance(known, NotNeeded):
            self._note(key, value, known.because)
        elif value is None or _is_one_of(value, known.plain):
            self._note(key, value, "llamafactory.plain")
        else:
            self._refuse(key, value, known.instead)

    def _stage(self, key: str, value: Any) -> None:
        if value in _OTHER_STAGES:
            self._refuse(key, value, "llamafactory.other_stage")
        if value not in _STAGES:
            self._refuse_value(key, value, t("recipe.expected", allowed=" / ".join(_STAGES)))
        orpo = value == "dpo" and self.values.get("pref_loss") == "orpo"
        self._put(key, value, "objective", "orpo" if orpo else _STAGES[value])

    def _pref_loss(self, key: str, value: Any) -> None:
        if self.values.get("stage") != "dpo":
            self._note(key, value, "llamafactory.other_stages")
        elif value not in _LOSSES:
            self._refuse(key, value, "llamafactory.pref_loss")
        elif value == "orpo":
            self._note(key, value, "llamafactory.orpo")
        else:
            self._put(key, value, "preference.loss_type", value)

    def _preference(self, key: str, value: Any) -> None:
        """Read a key that acts only with some of the preference objectives."""
        stage, loss = self.values.get("stage"), self.values.get("pref_loss") or "sigmoid"
        objective = loss if stage == "dpo" and loss == "orpo" else stage
        known = KEYS[key]
        wanted = {"pref_beta": ("dpo", "kto", "orpo"), "kto_chosen_weight": ("kto",), "kto_rejected_weight": ("kto",)}
        if objective not in wanted.get(key, ("dpo",)):
            # LLaMA-Factory practises the chosen answer beside KTO and ORPO, too.
            if key == "pref_ftx" and objective in {"kto", "orpo"} and value:
                self._refuse(key, value, "llamafactory.leave_out")
            self._note(key, value, "llamafactory.other_stages")
        elif isinstance(known, Becomes):
            self._become(key, value, known)
        else:
            self._have_no_field(key, value, known)

    def _method(self, key: str, value: Any) -> None:
        if value == "oft":
            self._refuse(key, value, "llamafactory.use_lora")
        if value not in _METHODS:
            self._refuse_value(key, value, t("recipe.expected", allowed=" / ".join(_METHODS)))
        quantised = value == "lora" and self.values.get("quantization_bit") is not None
        self._put(key, value, "method", "qlora" if quantised else value)

    def _quantization(self, key: str, value: Any) -> None:
        if value not in _BITS:
            self._refuse(key, value, "llamafactory.four_bit")
        if self.values.get("finetuning_type") not in {None, "lora", "oft"}:
            self._refuse(key, value, "llamafactory.quantise_lora")
        self._put(key, value, "lora.quantization_bit", value, "llamafactory.quantization")
        if self._word_on("method") is None and self.values.get("finetuning_type") is None:
            self._put(key, value, "method", "qlora")

    def _adapter(self, key: str, value: Any) -> None:
        paths = _texts(value)
        if len(paths) != 1 or self.values.get("create_new_adapter") is True:
            self._refuse(key, value, "llamafactory.merge_first")
        self._put(key, value, "lora.adapter", paths[0])

    def _dataset(self, key: str, value: Any) -> None:
        note = None if self.values.get("stage") in _ROWS else "llamafactory.dataset"
        self._put(key, value, "data.train", self._files(_texts(value)), note)

    def _dataset_dir(self, key: str, value: Any) -> None:
        self._note(key, value, "llamafactory.dataset_dir")

    def _eval_dataset(self, key: str, value: Any) -> None:
        names = _texts(value)
        if len(names) != 1:
            self._refuse(key, value, "llamafactory.one_holdout")
        if self.values.get("val_size"):
            raise RecipeError("llamafactory.both_holdouts", self.where)
        self._put(key, value, "data.holdout", self._files(names)[0])

    def _files(self, names: Iterable[str]) -> list[str]:
        """Return the file of each data set, as ``dataset_info.json`` says."""
        folder = self.values.get("dataset_dir")
        if folder is None:
            folder = _DATASET_DIR
        if folder == "ONLINE" or folder.startswith("REMOTE:"):
            self._refuse("dataset_dir", folder, "llamafactory.local_files")
        path = Path(folder).expanduser() / NAME
        info = read_list(path)
        kind = _ROWS.get(str(self.values.get("stage")), "answers")
        found = []
        for name in names:
            require_stage(entry_of(path, info, name), kind)
            found.append(f"{path}#{name}")
        return found

    def _val_size(self, key: str, value: Any) -> None:
        if value >= 1:
            self._refuse(key, value, "llamafactory.say_share")
        if value == 0 and self.values.get("eval_dataset") is not None:
            self._note(key, value, "llamafactory.plain")
            return
        self._put(key, value, "data.holdout", value)

    def _batch_size(self, key: str, value: Any) -> None:
        if value < 1:
            self._refuse_value(key, value, t("recipe.at_least", limit=1))
        factors = (("per_device_train_batch_size", _PER_DEVICE), ("gradient_accumulation_steps", _ACCUMULATION))
        each, times = (default if self.values.get(name) is None else self.values[name] for name, default in factors)
        self._put(key, value, "train.batch_size", each * times, "llamafactory.batch_size", each=each, times=times)
        self.names["train.batch_size"] = _PAIR

    def _epochs(self, key: str, value: Any) -> None:
        steps = self.values.get("max_steps")
        if (isinstance(steps, int) and steps > 0) or self._word_on("train.max_steps") is not None:
            self._note(key, value, "llamafactory.epochs_or_steps")
        else:
            self._put(key, value, "train.num_train_epochs", value)

    def _scheduler(self, key: str, value: Any) -> None:
        known = KEYS[key]
        assert isinstance(known, Becomes)
        self._put(key, value, known.field, known.renamed.get(value, value))
        if value == "constant" and not self._warmup_said:
            self._put(key, value, "train.warmup_ratio", 0.0, "llamafactory.scheduler")

    def _warmup_ratio(self, key: str, value: Any) -> None:
        steps = self.values.get("warmup_steps")
        if self.values.get("lr_scheduler_type") == "constant" or self._warmup_said:
            self._note(key, value, "llamafactory.scheduler" if not self._warmup_said else "llamafactory.steps_or_share")
        elif steps is not None and steps >= 1:
            self._note(key, value, "llamafactory.steps_or_share")
        else:
            self._put(key, value, "train.warmup_ratio", value)

    def _warmup_steps(self, key: str, value: Any) -> None:
        if self.values.get("lr_scheduler_type") == "constant" or self._warmup_said:
            self._note(key, value, "llamafactory.scheduler" if not self._warmup_said else "llamafactory.steps_or_share")
        elif value >= 1:
            if value != int(value):
                self._refuse_value(key, value, t("recipe.expected", allowed=t("recipe.kind_int")))
            self._put(key, value, "train.warmup_steps", int(value))
        elif value == 0 and self.values.get("warmup_ratio") is not None:
            self._note(key, value, "llamafactory.plain")
        else:
            self._put(key, value, "train.warmup_ratio", float(value))

    @property
    def _warmup_said(self) -> bool:
        """Whether the command line says how the rate rises, in either way: both at once would be two answers."""
        return any(self._word_on(f"train.{name}") for name in ("warmup_ratio", "warmup_steps"))

    def _optim(self, key: str, value: Any) -> None:
        known = KEYS[key]
        assert isinstance(known, Becomes)
        if self.values.get("use_muon") is True:
            self._note(key, value, "llamafactory.muon")
        else:
            self._become(key, value, known)

    def _eval_steps(self, key: str, value: Any) -> None:
        strategy = self.values.get("eval_strategy", self.values.get("evaluation_strategy"))
        if strategy != "steps":
            self._note(key, value, "llamafactory.eval_steps")
        elif value < 1:
            self._refuse(key, value, "llamafactory.say_steps")
        else:
            self._put(key, value, "eval.every", int(value) if value == int(value) else value)

    def _early_stopping(self, key: str, value: Any) -> None:
        self._put(key, value, "eval.early_stopping", True, "llamafactory.early_stopping")

    def _do_predict(self, key: str, value: Any) -> None:
        if value is True and not self.values.get("do_train"):
            self._refuse(key, value, "llamafactory.not_training")
        self._note(key, value, "llamafactory.proof")

    def _freeze(self, key: str, value: Any) -> None:
        known = KEYS[key]
        assert isinstance(known, Becomes)
        if self.values.get("finetuning_type") != "freeze":
            self._note(key, value, "llamafactory.switched_off")
        elif known.kind == "int":
            self._put(key, value, known.field, value)
        elif _texts(value) == ["all"]:
            self._put(key, value, known.field, [], known.note)
        else:
            self._put(key, value, known.field, _texts(value))

    def _bf16(self, key: str, value: Any) -> None:
        known = KEYS[key]
        assert isinstance(known, Becomes)
        if value and self.values.get("finetuning_type") in _WEIGHTS_LEARN:
            if key == "pure_bf16":
                self._refuse(key, value, "llamafactory.no_pure_bf16")
            self._note(key, value, "llamafactory.weights_fp32")
        else:
            self._become(key, value, known)

    def _put(
        self, key: str, value: Any, field: str, became: Any, note: str | None = None, **params: str | int | float
    ) -> None:
        self.recipe[field] = became
        self.names[field] = key
        self.translations.append(
            Translation(key=key, value=value, field=field, became=became, reason=note, params=params)
        )

    def _note(self, key: str, value: Any, reason: str, **params: str | int | float) -> None:
        shown = "…" if key in SECRET and value is not None else value
        self.translations.append(Translation(key=key, value=shown, reason=reason, params=params))

    def _word_on(self, field: str) -> str | None:
        """Return the word of the command line that decides a field, if there is one."""
        for name, value in self.words.items():
            if field == name or field.startswith(f"{name}."):
                return f"{name}={value}"
        return None

    def _check_kind(self, key: str, kind: Kind, value: Any) -> None:
        text, types = _KINDS[kind]
        fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
        if kind == "texts" and fits:
            fits = bool(_texts(value)) and all(isinstance(item, str) for item in _texts(value))
        if value is not None and not fits:
            self._refuse_value(key, value, t("recipe.expected", allowed=t(text)))

    def _refuse(self, key: str, value: Any, instead: str) -> None:
        known = KEYS[key]
        plain = known.plain if isinstance(known, NotBuilt | Becomes) and known.plain else (None,)
        allowed = " / ".join(show(item) for item in plain)
        advice = t(instead, allowed=allowed)
        raise RecipeError("llamafactory.not_built", self.where, key=key, value=show(value), instead=advice)

    def _refuse_value(self, key: str, value: Any, reason: str) -> None:
        raise RecipeError("recipe.bad_value", self.where, field=key, value=value, reason=reason)


def _texts(value: Any) -> list[Any]:
    """Return the items of a list, or of a text with commas."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return list(value)


def _is_one_of(value: object, plain: Iterable[object]) -> bool:
    """Say whether a value is among others; 0 is not False."""
    return any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in plain)

"""Reads and writes recipes: YAML in Danlu's words or in LLaMA-Factory's, and ``key=value`` words on top.

What cannot be read is said with file, field and remedy. Not for what a recipe may say (``recipe``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from danlu.errors import RecipeError, UsageError
from danlu.i18n import t
from danlu.llamafactory import DIFFERENT, Translation, field_of, is_llamafactory, translate
from danlu.plugins import UNKNOWN
from danlu.recipe import Recipe

_TEXTS: Final = frozenset({"model", "system", "eval.probes", "lora.adapter"})
_REQUIRED: Final = {"model": "model_name_or_path", "data": "dataset", "data.train": "dataset"}
"""What LLaMA-Factory calls the fields that must be there."""
_RANGES: Final = {
    "greater_than_equal": ("recipe.at_least", "ge"),
    "greater_than": ("recipe.above", "gt"),
    "less_than_equal": ("recipe.at_most", "le"),
    "less_than": ("recipe.below", "lt"),
}
_KINDS: Final = {
    "int": "recipe.kind_int",
    "float": "recipe.kind_number",
    "bool": "recipe.kind_bool",
    "string": "recipe.kind_text",
    "tuple": "recipe.kind_list",
    "too_short": "recipe.kind_list",
    "model": "recipe.kind_fields",
}


class _Loader(yaml.SafeLoader):
    """YAML that reads ``2e-4`` as the number people mean; YAML 1.1 takes it for a text because it has no point."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe, and how it was read.

    Attributes:
        recipe: the recipe.
        translations: how each key of a LLaMA-Factory file was read; none for a recipe in Danlu's own words.
    """

    recipe: Recipe
    translations: tuple[Translation, ...] = ()

    def left_open(self) -> dict[str, object]:
        """Return the fields of which nothing was said and which are not as in LLaMA-Factory then, with their values."""
        values = self.recipe.model_dump()
        fields = {name: _get(values, name.split(".")) for name in _field_names(Recipe)}
        said = {item.field for item in self.translations}
        # The section of a method, or of an objective, that is not used decides nothing.
        idle = {"lora": ("freeze.",), "qlora": ("freeze.",), "full": ("freeze.", "lora."), "freeze": ("lora.",)}
        weights = ("preference.desirable_weight", "preference.undesirable_weight")
        compared = {"dpo": weights, "orpo": weights, "kto": ()}.get(self.recipe.objective, ("preference.",))
        unused = (*idle[self.recipe.method], *compared, *(() if self.recipe.objective == "semi" else ("semi.",)))
        return {
            name: value
            for name, value in fields.items()
            if not name.startswith(unused) and (value == "auto" or (name in DIFFERENT and name not in said))
        }


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe as ``read_recipe`` does, for whoever does not ask how it was read."""
    return read_recipe(path, overrides).recipe


def read_recipe(path: Path | None, overrides: Sequence[str] = ()) -> ReadRecipe:
    """Read a recipe file, in Danlu's words or in LLaMA-Factory's, and apply ``key=value`` words to it.

    Args:
        path: YAML file; None for a recipe made of the words alone.
        overrides: words such as ``train.learning_rate=2e-4``; the value is read as YAML.

    Raises:
        RecipeError: the file is missing or is no recipe; the message names the field and the remedy.
        UsageError: a word has no ``=``.
    """
    words: list[tuple[str, str]] = []
    for word in overrides:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise UsageError("recipe.word_without_value", word=word)
        words.append((key, text))
    values: dict[str, Any] = {}
    where = None
    names: dict[str, str] = {}
    translations: tuple[Translation, ...] = ()
    if path is not None:
        where = str(path)
        values = _read_yaml(path)
        if is_llamafactory(values):
            read = translate(values, where, Recipe.model_fields, dict(words))
            values, translations = {}, read.translations
            names = _REQUIRED | {field: key for field, key in read.names.items() if field not in dict(words)}
            for field, value in read.values.items():
                _set(values, field.split("."), value)
    for key, text in words:
        _set(values, key.split("."), _scalar(key, text))
    try:
        return ReadRecipe(Recipe.model_validate(values), translations)
    except ValidationError as error:
        raise _explain(error, where, names) from error


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = _parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError("recipe.missing", str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError("recipe.not_yaml", str(path), reason=" ".join(str(error).split())) from error
    if not isinstance(value, dict):
        raise RecipeError("recipe.not_mapping", str(path))
    return value


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506  a safe loader with one more number format


def _scalar(key: str, text: str) -> object:
    if key in _TEXTS:
        return None if key in {"eval.probes", "lora.adapter"} and text in {"", "null"} else text
    try:
        return _parse(text)
    except yaml.YAMLError:
        return text


def _set(values: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[keys[-1]] = value


def _get(values: Any, keys: Sequence[str]) -> object:
    for key in keys:
        values = values[key]
    return values


def _explain(error: ValidationError, where: str | None, names: Mapping[str, str]) -> RecipeError:
    """Return what is wrong in words; ``names`` has the names that fields bear in a LLaMA-Factory file."""
    first = error.errors()[0]
    field = _field_of(first)
    if first["type"] == "extra_forbidden":
        named = field_of(field) or _similar(field)
        if named:
            return RecipeError("recipe.unknown_field_close", where, field=field, close=named)
        return RecipeError("recipe.unknown_field", where, field=field, known=", ".join(Recipe.model_fields))
    if first["type"] == "missing" and field in names:
        wanted = "data.train" if field == "data" else field
        return RecipeError("llamafactory.missing_key", where, key=names[field], field=wanted)
    if first["type"] == "missing":
        return RecipeError("recipe.missing_field", where, field=field)
    reason = _reason([item for item in error.errors() if _field_of(item) == field])
    return RecipeError("recipe.bad_value", where, field=names.get(field, field), value=first["input"], reason=reason)


def _similar(field: str) -> str | None:
    """Return the field that was probably meant: misspelled, of the same last name, or spelled nearly alike."""
    names = list(_field_names(Recipe))
    section = field.rpartition(".")[0]
    beside = difflib.get_close_matches(
        field, [name for name in names if name.rpartition(".")[0] == section], n=1, cutoff=0.75
    )
    if beside:
        return beside[0]
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    for word, known in ((field.rpartition(".")[2], list(last)), (field, names)):
        found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
        if found:
            return last.get(found[0], found[0])
    return None


def _field_of(error: ErrorDetails) -> str:
    """Return the dotted name of the field that an error is about, without pydantic's names of union members."""
    if error["type"] in {"extra_forbidden", "missing"}:
        return ".".join(str(part) for part in error["loc"])
    names: list[str] = []
    section: type[BaseModel] | None = Recipe
    for part in error["loc"]:
        if section is None or part not in section.model_fields:
            break
        names.append(str(part))
        section = _section_of(section.model_fields[str(part)].annotation)
    return ".".join(names)


def _reason(errors: Sequence[ErrorDetails]) -> str:
    """Say what a field may be, from the errors of all its alternatives: the limit it broke, or what is allowed."""
    for error in errors:
        if error["type"] in _RANGES:
            key, limit = _RANGES[error["type"]]
            return t(key, limit=f"{error['ctx'][limit]:g}")
    allowed: list[str] = []
    misspelled = ""
    for error in errors:
        if error["type"] == "literal_error":
            allowed += re.findall(r"'([^']+)'", error["ctx"]["expected"])
        elif error["type"] == UNKNOWN:
            allowed += [name for name in error["ctx"]["known"].split(",") if name]
            misspelled = str(error["input"])
        else:
            kind = next((key for kind, key in _KINDS.items() if error["type"].startswith(kind)), "recipe.kind_other")
            allowed.append(t(kind))
    reason = t("recipe.expected", allowed=" / ".join(dict.fromkeys(allowed)))
    close = difflib.get_close_matches(misspelled, allowed, n=1, cutoff=0.6)
    return t("recipe.meant", reason=reason, close=close[0]) if close else reason


def _section_of(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _field_names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from _field_names(inner, f"{prefix}{name}.")

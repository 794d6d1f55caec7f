"""How a file of LLaMA-Factory's was read, as values; making them: ``translate``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from danlu.i18n import Language, t


class Translation(BaseModel):
    """How one key was read.

    Attributes:
        key: LLaMA-Factory's key.
        value: its value in the file; a secret is replaced by dots.
        field: dotted name of the recipe's field, or None when it has none.
        became: the value that the field took.
        reason: catalogue key of what is different, or of why there is no field.
        params: values of the reason's placeholders.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    value: Any
    field: str | None = None
    became: Any = None
    reason: str | None = None
    params: dict[str, str | int | float] = {}

    def because(self, lang: Language | None = None) -> str:
        """Return the reason as a sentence; empty when there is nothing to say."""
        return t(self.reason, lang, **self.params) if self.reason else ""


class Translated(BaseModel):
    """A file of LLaMA-Factory's as values of the recipe.

    Attributes:
        values: value of each field by its dotted name.
        names: LLaMA-Factory's key that a field came from, by the field's dotted name; for messages.
        translations: how each key was read, in the order of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, Any]
    names: dict[str, str]
    translations: tuple[Translation, ...]


def show(value: object) -> str:
    """Return a value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(show(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)

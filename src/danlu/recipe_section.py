"""What the sections of a recipe have in common. ``recipe`` puts them together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Auto = Literal["auto"]


class Section(BaseModel):
    """A section of a recipe: unknown fields are mistakes, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def zh(text: str) -> dict[str, Any]:
    """Return a field's description in Chinese, as it stands beside the English one."""
    return {"zh": text}


def as_list(value: object) -> object:
    """Let one name stand for a list of one."""
    return [value] if isinstance(value, str) else value

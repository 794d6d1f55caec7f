"""What the families of rows have in common: how one is recognised, and how fields of any row are read.

Not for one family (the modules beside this one), nor for choosing among them (``data.formats``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Generic, Literal, Protocol, TypeVar

from danlu.data.rows import JsonValue, Row, kind_of, place
from danlu.errors import DataError
from danlu.i18n import t

Kind = Literal["conversations", "texts", "preferences", "labels", "questions"]
T_co = TypeVar("T_co", covariant=True)
_EXCERPT: Final = 60


class RowFormat(Protocol, Generic[T_co]):
    """A family of rows.

    Attributes:
        name: its name; stands in the manifests of data sets.
        kind: what its rows become.
        fields: the fields that are read; others are ignored.
        folded: they are compared folded (``names.fold``), because files call them as they like.
        shown: the fields as people are told of them, without every name that there is in every language.
    """

    name: str
    kind: Kind
    fields: frozenset[str]
    folded: bool
    shown: tuple[str, ...]

    def matches(self, row: Row) -> bool:
        """Say whether a row looks like one of this family."""

    def convert(self, file: Path | str, row: Row) -> T_co:
        """Turn a row into what it means, or raise a ``DataError`` that names the row and the field."""


def text_of(file: Path | str, row: Row, field: str, *, required: bool = False) -> str:
    """Return the text in a field; an empty one where it is missing.

    Raises:
        DataError: it is no text, or it is required and missing or empty.
    """
    value = row.values.get(field)
    if value is None and not required:
        return ""
    if value is None:
        raise DataError("data.field_missing", place(file, row, field), field=field)
    if not isinstance(value, str):
        raise DataError("data.field_not_text", place(file, row, field), field=field, kind=kind_of(value))
    if required and not value.strip():
        raise DataError("data.field_empty", place(file, row, field), field=field)
    return value


def weight_of(file: Path | str, row: Row) -> float:
    """Return how much a row counts, above 0 and at most 1; 1 where it does not say.

    Raises:
        DataError: ``weight`` is anything else.
    """
    value = row.values.get("weight")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise DataError("data.bad_weight", place(file, row, "weight"), field="weight", value=excerpt(value))
    return float(value)


def accepted_of(file: Path | str, row: Row) -> bool | None:
    """Return whether an answer of a model is accepted; None where people wrote it.

    Raises:
        DataError: ``accepted`` is neither true nor false.
    """
    accepted = row.values.get("accepted")
    if not (accepted is None or isinstance(accepted, bool)):
        where = place(file, row, "accepted")
        raise DataError("data.accepted_not_bool", where, field="accepted", kind=kind_of(accepted))
    return accepted


def tools_of(file: Path | str, row: Row) -> str:
    """Return the tools of a row, a list or the JSON text of one, as JSON text; an empty text for none.

    A bare function (OpenAI's older ``functions``, LLaMA-Factory's ``tools``) is written as the tool that it is, so
    that a model is trained on the form in which programs will offer tools to it.

    Raises:
        DataError: they are no list of objects.
    """
    field = "functions" if row.values.get("tools") is None and row.values.get("functions") is not None else "tools"
    value = row.values.get(field)
    if isinstance(value, str) and value.strip():
        value = json_in(file, row, field, value, "formats.tools_shape", named="kind")
    if value in (None, "", []) or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError("formats.tools_shape", place(file, row, field), kind=kind_of(value))
    tools = [item for item in value if isinstance(item, dict)]
    return json.dumps([_as_tool(item) for item in tools], ensure_ascii=False)


def json_in(file: Path | str, row: Row, field: str, text: str, key: str, named: str = "reason") -> JsonValue:
    """Return the JSON value that a text holds.

    Args:
        file: the file, for the message.
        row: the row, for the message.
        field: the field, for the message.
        text: the text.
        key: the error where it holds none.
        named: the placeholder of that message that says why.

    Raises:
        DataError: it holds none.
    """
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        raise DataError(key, place(file, row, field), **{named: str(error)}) from None
    except RecursionError:
        raise DataError(key, place(file, row, field), **{named: t("data.nested_too_deeply")}) from None
    return value


def _as_tool(item: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {"type": "function", "function": item} if "name" in item and "function" not in item else item


def excerpt(value: object) -> str:
    """Return a value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def require_roles(file: Path | str, row: Row, field: str, value: JsonValue) -> list[dict[str, JsonValue]]:
    """Return a list of objects; tables hold it as JSON text.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json_in(file, row, field, value, "formats.messages_text")
    if not isinstance(value, list):
        raise DataError("formats.not_messages", place(file, row, field), field=field, kind=kind_of(value))
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            where = place(file, row, f"{field}[{number}]")
            raise DataError("formats.not_messages", where, field=field, kind=kind_of(item))
    return [item for item in value if isinstance(item, dict)]

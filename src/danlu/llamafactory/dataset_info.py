"""``dataset_info.json``: LLaMA-Factory's list of data sets, from which a name becomes a file.

Not for reading rows (``data.rows``): what cannot be read here is refused, never read in another way.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Final, Literal

from danlu.errors import RecipeError

NAME: Final = "dataset_info.json"
_ELSEWHERE: Final = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_SUFFIXES: Final = frozenset({".json", ".jsonl"})
_COLUMNS: Final = {
    "prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history",
}  # fmt: skip
RowKind = Literal["answers", "texts", "pairs", "labels"]
_TEXT: Final = "text"
_MORE: Final[dict[RowKind, dict[str, str]]] = {
    "answers": {},
    "texts": {},
    "pairs": {"chosen": "chosen", "rejected": "rejected"},
    "labels": {"kto_tag": "kto_tag"},
}
# What each kind of rows must have; where no columns are named, LLaMA-Factory looks for an answer and nothing else.
_NEEDED: Final[dict[RowKind, tuple[str, ...]]] = {
    "answers": ("prompt", "response"),
    "texts": (),
    "pairs": ("prompt", "chosen", "rejected"),
    "labels": ("prompt", "response", "kto_tag"),
}
_NAMED: Final = 8


def read_dataset_info(folder: Path) -> dict[str, Any]:
    """Read the list of data sets of a folder.

    Raises:
        RecipeError: it is missing, or is no list of data sets.
    """
    path = folder / NAME
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError("llamafactory.no_dataset_info", str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError("llamafactory.bad_dataset_info", str(path), reason=" ".join(str(error).split())) from None
    if not isinstance(info, dict):
        raise RecipeError("llamafactory.dataset_info_shape", str(path))
    return info


def file_of(folder: Path, info: dict[str, Any], name: str, kind: RowKind = "answers") -> Path:
    """Return the file of a data set, if it is one that Danlu reads as LLaMA-Factory does.

    Args:
        folder: where ``dataset_info.json`` lies; a file's name counts from there.
        info: its content.
        name: name of the data set.
        kind: what its rows are to be, by the stage: plain texts (pt), pairs (dpo), labels (kto), or answers.

    Raises:
        RecipeError: there is no such data set, or it is of a kind that is not read yet.
    """
    where = f"{folder / NAME}, {name}"
    entry = info.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, info, n=1, cutoff=0.6)
        if close:
            raise RecipeError("llamafactory.unknown_dataset_close", str(folder / NAME), name=name, close=close[0])
        known = ", ".join(list(info)[:_NAMED]) + (" …" if len(info) > _NAMED else "") or "–"
        raise RecipeError("llamafactory.unknown_dataset", str(folder / NAME), name=name, known=known)
    if not isinstance(entry, dict):
        raise RecipeError("llamafactory.dataset_info_shape", where)
    elsewhere = next((key for key in _ELSEWHERE if key in entry), None)
    if elsewhere is not None:
        raise RecipeError("llamafactory.dataset_elsewhere", where, key=elsewhere, value=entry[elsewhere])
    file = entry.get("file_name")
    if not isinstance(file, str) or not file:
        raise RecipeError("llamafactory.dataset_without_file", where)
    formatting = entry.get("formatting", "alpaca")
    if formatting != "alpaca":
        raise RecipeError("llamafactory.dataset_format", where, value=formatting)
    if kind == "pairs" and entry.get("ranking") is not True:
        raise RecipeError("llamafactory.not_ranked", where)
    for key, plain in (("ranking", kind == "pairs"), ("num_samples", None), ("split", "train")):
        if entry.get(key, plain) not in {plain, None}:
            raise RecipeError("llamafactory.dataset_option", where, key=key, value=entry[key])
    columns = entry.get("columns", {})
    if not isinstance(columns, dict):
        raise RecipeError("llamafactory.dataset_info_shape", where)
    if kind == "texts":
        _check_text_column(where, columns)
    else:
        _check_columns(where, columns, kind)
    path = folder / file
    if path.is_dir():
        raise RecipeError("llamafactory.dataset_folder", where, file=path)
    if path.suffix not in _SUFFIXES:
        raise RecipeError("llamafactory.dataset_suffix", where, file=path, known=", ".join(sorted(_SUFFIXES)))
    if not path.is_file():
        raise RecipeError("llamafactory.dataset_file_missing", where, file=path)
    return path


def _check_columns(where: str, columns: dict[str, Any], kind: RowKind) -> None:
    """Check that the columns have the names that Danlu reads; where none are named, LLaMA-Factory takes the same."""
    read = _COLUMNS | _MORE[kind]
    for role in _NEEDED[kind] if columns or kind != "answers" else ():
        # What a list of columns leaves out, LLaMA-Factory takes for absent.
        if columns.get(role) is None:
            raise RecipeError("llamafactory.column_missing", where, role=role, column=read[role])
    for role, column in columns.items():
        if role not in read and column is not None:
            raise RecipeError("llamafactory.column_unknown", where, role=role, column=column)
        if column not in {None, read.get(role)}:
            raise RecipeError("llamafactory.column_name", where, role=role, column=column, meant=read[role])


def _check_text_column(where: str, columns: dict[str, Any]) -> None:
    """Check that the texts stand in the column that Danlu reads them from."""
    column = columns.get("prompt", None if columns else _COLUMNS["prompt"])
    if column != _TEXT:
        raise RecipeError("llamafactory.column_name", where, role="prompt", column=column, meant=_TEXT)

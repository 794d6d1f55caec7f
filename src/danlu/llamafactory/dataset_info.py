"""``dataset_info.json``: LLaMA-Factory's list of data sets, from which a name becomes files and a way to read them.

Every key for texts is read with the default that LLaMA-Factory documents. Its trap is not: there, naming one column
makes every other one unknown, and all rows are dropped; here the others keep their usual names. Not for reading rows
(``data.rows``).
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from danlu.errors import RecipeError

NAME: Final = "dataset_info.json"
RowKind = Literal["answers", "texts", "pairs", "labels"]
_HUBS: Final = {"hf_hub_url": "hf", "ms_hub_url": "ms"}
_ELSEWHERE: Final = ("script_url", "cloud_file_name", "om_hub_url")
_PICTURES: Final = ("images", "videos", "audios")
_FORMATTINGS: Final = ("alpaca", "sharegpt", "openai")
# LLaMA-Factory's names of columns, the column that it takes where none is named, and what Danlu calls it.
_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "prompt": ("instruction", "question"),
    "query": ("input", "input"),
    "response": ("output", "answer"),
    "history": ("history", "history"),
    "messages": ("conversations", "messages"),
    "system": ("system", "system"),
    "tools": ("tools", "tools"),
    "chosen": ("chosen", "chosen"),
    "rejected": ("rejected", "rejected"),
    "kto_tag": ("kto_tag", "label"),
}
_TAGS: Final = frozenset({
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
})  # fmt: skip
_OPENAI: Final = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "tool_calls", "system_tag": "system",
}  # fmt: skip
_KEYS: Final = frozenset({
    "file_name", "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags",
    *_HUBS, *_ELSEWHERE,
})  # fmt: skip
_NAMED: Final = 8


@dataclass(frozen=True)
class Entry:
    """A data set as the list describes it.

    Attributes:
        where: file and name, for messages.
        path: the file or folder; None where it lies on a hub.
        hub: ``hf:owner/name`` or ``ms:owner/name`` with subset and split; None where it is a file.
        columns: what is meant, by the column that holds it; empty where everything has its usual name.
        tags: keys and speakers of messages; empty for the usual ones.
        texts: its rows are plain texts.
        pairs: its rows hold two answers each.
        samples: so many rows by chance; None for all.
    """

    where: str
    path: Path | None
    hub: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    texts: bool = False
    pairs: bool = False
    samples: int | None = None


def read_list(path: Path) -> dict[str, Any]:
    """Read a list of data sets.

    Raises:
        RecipeError: it is missing, or is no list of data sets.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError("llamafactory.no_dataset_info", str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError("llamafactory.bad_dataset_info", str(path), reason=" ".join(str(error).split())) from None
    if not isinstance(info, dict):
        raise RecipeError("llamafactory.dataset_info_shape", str(path))
    return info


def entry_of(path: Path, info: dict[str, Any], name: str) -> Entry:
    """Return what the list says of a data set.

    Args:
        path: the list; a file's name counts from its folder.
        info: its content.
        name: name of the data set.

    Raises:
        RecipeError: there is no such data set, a key is unknown or has no meaning here, or its file is missing.
    """
    where = f"{path}, {name}"
    entry = info.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, info, n=1, cutoff=0.6)
        if close:
            raise RecipeError("llamafactory.unknown_dataset_close", str(path), name=name, close=close[0])
        known = ", ".join(list(info)[:_NAMED]) + (" …" if len(info) > _NAMED else "") or "–"
        raise RecipeError("llamafactory.unknown_dataset", str(path), name=name, known=known)
    if not isinstance(entry, dict):
        raise RecipeError("llamafactory.dataset_info_shape", where)
    unknown = next((key for key in entry if key not in _KEYS), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, _KEYS, n=1, cutoff=0.5)
        raise RecipeError(
            "llamafactory.dataset_key", where, key=unknown, known=close[0] if close else ", ".join(sorted(_KEYS))
        )
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATTINGS:
        raise RecipeError("llamafactory.dataset_format", where, value=formatting)
    ranking, samples = entry.get("ranking", False), entry.get("num_samples")
    if not isinstance(ranking, bool):
        raise RecipeError("llamafactory.dataset_option", where, key="ranking", value=ranking)
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise RecipeError("llamafactory.dataset_option", where, key="num_samples", value=samples)
    columns = _columns(where, entry, formatting)
    file, hub = _source(path, where, entry)
    return Entry(
        where=where,
        path=file,
        hub=hub,
        columns=columns,
        tags=_tags(where, entry, formatting),
        texts=formatting == "alpaca" and list(entry.get("columns") or {}) == ["prompt"] and not ranking,
        pairs=ranking,
        samples=samples,
    )


def require_stage(entry: Entry, kind: RowKind) -> None:
    """Check that a data set is of the kind that a training stage learns.

    Args:
        entry: the data set.
        kind: plain texts (pt), pairs (dpo), labels (kto), or answers.

    Raises:
        RecipeError: it is not.
    """
    if kind == "pairs" and not entry.pairs:
        raise RecipeError("llamafactory.not_ranked", entry.where)
    if kind != "pairs" and entry.pairs:
        raise RecipeError("llamafactory.dataset_option", entry.where, key="ranking", value=True)
    if kind == "answers" and entry.texts:
        raise RecipeError("llamafactory.column_missing", entry.where, role="response", column="output")
    if kind == "texts" and not entry.texts:
        column = entry.columns.get("question", "instruction")
        raise RecipeError("llamafactory.column_name", entry.where, role="prompt", column=column, meant="text")
    if kind == "labels" and "label" not in entry.columns:
        raise RecipeError("llamafactory.column_missing", entry.where, role="kto_tag", column="kto_tag")


def _columns(where: str, entry: dict[str, Any], formatting: str) -> dict[str, str]:
    named = entry.get("columns") or {}
    if not isinstance(named, dict):
        raise RecipeError("llamafactory.dataset_info_shape", where)
    picture = next((role for role in _PICTURES if named.get(role) is not None), None)
    if picture is not None:
        raise RecipeError("llamafactory.dataset_pictures", where, role=picture)
    for role, column in named.items():
        if role not in _COLUMNS and role not in _PICTURES:
            raise RecipeError("llamafactory.column_unknown", where, role=role, column=column)
        if column is not None and not isinstance(column, str):
            raise RecipeError("llamafactory.dataset_info_shape", where)
    if formatting == "alpaca" and list(named) == ["prompt"] and not entry.get("ranking"):
        return {"text": named["prompt"]}
    usual = {role: column for role, (column, _) in _COLUMNS.items() if role not in {"chosen", "rejected", "kto_tag"}}
    if formatting == "alpaca":
        del usual["messages"]
    else:
        usual = {
            "messages": "messages" if formatting == "openai" else "conversations",
            "system": "system",
            "tools": "tools",
        }
    if entry.get("ranking"):
        usual |= {"chosen": "chosen", "rejected": "rejected"}
        usual.pop("response", None)
    given = {role: column for role, column in named.items() if column is not None and role in _COLUMNS}
    # A column that the list gives another meaning is not taken for what its name usually means.
    usual = {role: column for role, column in usual.items() if role not in named and column not in given.values()}
    wanted = usual | given
    return {_COLUMNS[role][1]: column for role, column in wanted.items()}


def _tags(where: str, entry: dict[str, Any], formatting: str) -> dict[str, str]:
    tags = entry.get("tags")
    if tags is not None and not (isinstance(tags, dict) and all(isinstance(tag, str) for tag in tags.values())):
        raise RecipeError("llamafactory.dataset_info_shape", where)
    unknown = next((key for key in tags or {} if key not in _TAGS), None)
    if unknown is not None:
        raise RecipeError("llamafactory.tag_unknown", where, key=unknown, known=", ".join(sorted(_TAGS)))
    if formatting == "alpaca":
        return {}
    return (_OPENAI if formatting == "openai" else {}) | (tags or {})


def _source(path: Path, where: str, entry: dict[str, Any]) -> tuple[Path | None, str | None]:
    """Return the file or folder, or else the name on a hub; a file that is there goes before a hub."""
    file = entry.get("file_name")
    if file is not None and (unused := next((key for key in ("subset", "folder") if entry.get(key)), None)):
        # They choose a part of a data set on a hub.
        raise RecipeError("llamafactory.dataset_hub_key", where, key=unused, value=entry[unused])
    if file is None:
        hub = next((key for key in _HUBS if entry.get(key)), None)
        if hub is not None:
            subset, split = entry.get("subset"), entry.get("split", "train")
            if entry.get("folder"):
                raise RecipeError("llamafactory.dataset_option", where, key="folder", value=entry["folder"])
            return None, f"{_HUBS[hub]}:{entry[hub]}" + (f"/{subset}" if subset else "") + f":{split}"
        elsewhere = next((key for key in _ELSEWHERE if key in entry), None)
        if elsewhere is not None:
            raise RecipeError("llamafactory.dataset_elsewhere", where, key=elsewhere, value=entry[elsewhere])
    if not isinstance(file, str) or not file:
        raise RecipeError("llamafactory.dataset_without_file", where)
    split = entry.get("split", "train")
    if split not in {"train", None}:
        raise RecipeError("llamafactory.dataset_option", where, key="split", value=split)
    found = path.parent / file
    if not found.exists():
        raise RecipeError("llamafactory.dataset_file_missing", where, file=found)
    return found, None

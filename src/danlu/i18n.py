"""Text that people see, in Chinese and English, from the catalogues under ``locale/``.

One YAML file a room and language (``locale/en/data.yaml`` holds the keys ``data.*``). A value is a text with
``{placeholders}``; an error's value is a mapping of ``what`` and ``fix``. Not for log lines or identifiers.
"""

from __future__ import annotations

import locale
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Final, Literal, get_args

import yaml

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

# Both read the same; the one in C takes 0.02 s for a language instead of 0.3 s, which every process of Danlu waits for.
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_current: ContextVar[Language | None] = ContextVar("danlu_language", default=None)


def match_language(tag: str | None) -> Language | None:
    """Return the catalogue for a tag such as ``zh_CN.UTF-8`` or ``en-GB,en;q=0.8``; None when there is none."""
    for part in (tag or "").replace("_", "-").lower().split(","):
        for language in LANGUAGES:
            if part.strip().startswith(language):
                return language
    return None


def language() -> Language:
    """Return the language in force: the request's, then ``DANLU_LANG``, then the system's, then English."""
    chosen = _current.get()
    if chosen is not None:
        return chosen
    for tag in (os.environ.get("DANLU_LANG"), os.environ.get("LC_ALL"), os.environ.get("LANG"), locale.getlocale()[0]):
        found = match_language(tag)
        if found is not None:
            return found
    return "en"


@contextmanager
def use_language(chosen: Language | None) -> Iterator[None]:
    """Use ``chosen`` for the code inside (one request, one test); None leaves the language as it is."""
    token = _current.set(chosen if chosen is not None else _current.get())
    try:
        yield
    finally:
        _current.reset(token)


@cache
def catalogue(chosen: Language) -> dict[str, str]:
    """Return every text of a language by its full key; errors give two keys, ``….what`` and ``….fix``."""
    texts: dict[str, str] = {}
    for entry in sorted(files("danlu").joinpath("locale", chosen).iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            read = yaml.load(entry.read_text(encoding="utf-8"), _LOADER)  # noqa: S506  safe loaders both
            _flatten(entry.name.removesuffix(".yaml"), read, texts)
    return texts


def t(key: str, lang: Language | None = None, /, **params: object) -> str:
    """Return the text of ``key`` with its placeholders filled.

    Args:
        key: room and name, for example ``data.rows_read``.
        lang: the language; the one in force when None.
        **params: values of the placeholders.

    Raises:
        KeyError: no such key, or a placeholder without a value; both are defects that tests catch.
    """
    return catalogue(lang or language())[key].format_map(params)


def _flatten(prefix: str, value: object, into: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _flatten(f"{prefix}.{name}", inner, into)
    elif isinstance(value, str):
        into[prefix] = value.strip()
    elif value is not None:
        raise TypeError(f"catalogue entry {prefix} is not a text: {value!r}")

"""Both catalogues are complete: the same keys and placeholders, every key used exists, every key there is used."""

from __future__ import annotations

import ast
import inspect
import re
import string
from collections.abc import Iterator
from pathlib import Path

import yaml

import danlu
from danlu import errors
from danlu.errors import DanluError
from danlu.i18n import LANGUAGES, catalogue

SOURCE = Path(danlu.__file__).parent
ERRORS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DanluError)}
# Calls whose first argument is a key, beside `t` and the error classes.
KEY_CALLS = {"t", *ERRORS}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def templates() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.j2"))


def called_name(call: ast.Call) -> str:
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def texts_used() -> tuple[dict[str, set[str]], set[str], set[str]]:
    """Return the keys given to calls (by file), all text constants, and the beginnings of all f-strings."""
    keys: dict[str, set[str]] = {}
    constants: set[str] = set()
    beginnings: set[str] = set()
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                constants.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                beginnings.add(str(node.values[0].value))
            if isinstance(node, ast.Call) and called_name(node) in KEY_CALLS and node.args:
                first = node.args[0]
                for choice in [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]:
                    if isinstance(choice, ast.Constant) and isinstance(choice.value, str):
                        kind = "error" if called_name(node) in ERRORS else "text"
                        keys.setdefault(f"{kind}:{choice.value}", set()).add(path.name)
    return keys, constants, beginnings


def placeholders(text: str) -> set[tuple[str, str]]:
    return {(name, spec or "") for _, name, spec, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_keys():
    english, chinese = (set(catalogue(language)) for language in LANGUAGES)
    assert english - chinese == set()
    assert chinese - english == set()


def test_both_languages_have_the_same_placeholders():
    english, chinese = catalogue("en"), catalogue("zh")
    assert [key for key in english if placeholders(english[key]) != placeholders(chinese[key])] == []


def test_no_chinese_text_was_left_in_english_and_none_is_empty():
    for language in LANGUAGES:
        for key, text in catalogue(language).items():
            assert text, f"{language}: {key} is empty"
    left = [key for key in catalogue("zh") if catalogue("zh")[key] == catalogue("en")[key]]
    words = [
        key for key in left if re.search(r"[A-Za-z]{4,} [a-z]{2,}", re.sub(r"\{[^}]*\}", "", catalogue("zh")[key]))
    ]
    assert words == [], "these are English in the Chinese catalogue"


def test_no_key_stands_twice_in_a_file():
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        names = [loader.construct_object(key) for key, _ in node.value]
        assert len(names) == len(set(names)), f"twice: {sorted({n for n in names if names.count(n) > 1})}"
        return {
            name: loader.construct_object(value, deep=True) for name, (_, value) in zip(names, node.value, strict=True)
        }

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for path in SOURCE.glob("locale/*/*.yaml"):
        yaml.load(path.read_text(encoding="utf-8"), Strict)


def test_every_key_used_in_the_code_exists():
    keys, _, beginnings = texts_used()
    known = catalogue("en")
    rooms = {key.split(".")[0] for key in known}
    for used, files in keys.items():
        kind, _, key = used.partition(":")
        wanted = [f"{key}.what", f"{key}.fix"] if kind == "error" else [key]
        assert all(name in known for name in wanted), f"{key}, used in {files}"
    for beginning in beginnings:
        if re.fullmatch(r"[a-z_]+\.[a-z_.]*", beginning) and beginning.split(".")[0] in rooms:
            assert any(key.startswith(beginning) for key in known), f"no key begins with {beginning}"


def test_every_error_key_has_both_sentences():
    for key in catalogue("en"):
        if key.endswith(".what"):
            assert key.removesuffix(".what") + ".fix" in catalogue("en"), key


def test_no_key_is_unused():
    _, constants, beginnings = texts_used()
    page = templates()
    dynamic = tuple(text for text in beginnings if re.fullmatch(r"[a-z_]+\.[a-z_.]+", text))
    unused = []
    for key in catalogue("en"):
        whole = key.removesuffix(".what").removesuffix(".fix")
        short = key.partition(".")[2]
        if {key, whole} & constants or key.startswith(dynamic) or f't("{short}"' in page or f"t('{short}'" in page:
            continue
        unused.append(key)
    assert not unused, ", ".join(unused)

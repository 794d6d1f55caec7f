"""Write the tables of LLaMA-Factory's keys into the manual, from ``danlu.llamafactory``.

Usage: llamafactory_table.py. Replaces what stands between the marks in ``docs/from-llamafactory.md`` and its Chinese
twin; a test holds that nothing is to be replaced.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from danlu.i18n import Language, t, use_language
from danlu.llamafactory import KEYS, Becomes, NotBuilt, NotNeeded
from danlu.llamafactory.translation import show

PAGES: Final[dict[Language, Path]] = {
    "en": Path(__file__).parent.parent / "docs" / "from-llamafactory.md",
    "zh": Path(__file__).parent.parent / "docs" / "from-llamafactory.zh.md",
}
_HEADS: Final[dict[Language, dict[str, tuple[str, ...]]]] = {
    "en": {
        "becomes": ("LLaMA-Factory", "Danlu", "remark"),
        "not_built": ("LLaMA-Factory", "accepted", "else"),
        "not_needed": ("LLaMA-Factory", "why it is not needed"),
    },
    "zh": {
        "becomes": ("LLaMA-Factory", "丹炉", "说明"),
        "not_built": ("LLaMA-Factory", "接受的值", "其他值"),
        "not_needed": ("LLaMA-Factory", "为什么不需要"),
    },
}


def tables(lang: Language) -> dict[str, str]:
    """Return the three tables in Markdown, by the name of their mark."""
    with use_language(lang):
        return {
            "becomes": _table(lang, "becomes", _becomes()),
            "not_built": _table(lang, "not_built", _not_built()),
            "not_needed": _table(lang, "not_needed", _not_needed()),
        }


def with_tables(page: str, lang: Language) -> str:
    """Return a page with the tables put between its marks."""
    for name, table in tables(lang).items():
        parts = re.split(f"(<!-- /?{name} -->)", page)
        if len(parts) != 5:
            raise SystemExit(f"{PAGES[lang]}: the marks <!-- {name} --> and <!-- /{name} --> must stand there once")
        page = "".join([*parts[:2], f"\n{table}\n", *parts[3:]])
    return page


def _becomes() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, key in KEYS.items():
        if isinstance(key, Becomes):
            named: dict[str, list[str]] = {}
            for old, new in key.renamed.items():
                named.setdefault(new, []).append(f"`{show(old)}`")
            values = [f"{', '.join(old)} → `{new}`" for new, old in named.items()]
            # The note of the batch size counts; here it names what is counted.
            counted = {"each": "per_device_train_batch_size", "times": "gradient_accumulation_steps"}
            notes = [t(key.note, **counted)] if key.note else []
            rows.append((f"`{name}`", f"`{key.field}`", " · ".join([*values, *notes])))
    return rows


def _not_built() -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for name, key in KEYS.items():
        if isinstance(key, NotBuilt):
            allowed = [f"`{show(item)}`" for item in key.plain if item != ""] or ["`null`"]
            advice = t(key.instead, allowed=" / ".join(allowed))
            groups.setdefault((", ".join(allowed), advice), []).append(f"`{name}`")
    return [(", ".join(names), allowed, advice) for (allowed, advice), names in groups.items()]


def _not_needed() -> list[tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        if isinstance(key, NotNeeded):
            groups.setdefault(t(key.because), []).append(f"`{name}`")
    return [(", ".join(names), because) for because, names in groups.items()]


def _table(lang: Language, name: str, rows: list[tuple[str, ...]]) -> str:
    head = _HEADS[lang][name]
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Write both pages."""
    for lang, path in PAGES.items():
        path.write_text(with_tables(path.read_text(encoding="utf-8"), lang), encoding="utf-8")


if __name__ == "__main__":
    main()

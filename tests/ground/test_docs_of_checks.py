"""The manual lists every kind of problem that the check can name, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = Path(__file__).parents[2] / "src" / "danlu"


@pytest.mark.parametrize("page", ["checks.md", "checks.zh.md"])
def test_every_kind_of_problem_is_in_the_manual(page):
    listed = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE))
    code = "".join(path.read_text(encoding="utf-8") for path in (SOURCES / "data").rglob("*.py"))
    used = set(re.findall(r'"((?:checks|data|formats)\.[a-z_]+)", "(?:error|warning|info)"', code))
    kinds = yaml.safe_load((SOURCES / "locale" / "en" / "checks.yaml").read_text(encoding="utf-8"))
    noted = {f"checks.{key}" for key, value in kinds.items() if isinstance(value, dict)}
    noted -= {"checks.unknown_repair", "checks.repair_where", "checks.repair_exists", "checks.repair_suffix"}
    assert used <= listed
    assert noted <= listed
    assert {code for code in listed if code.startswith("checks.")} == noted

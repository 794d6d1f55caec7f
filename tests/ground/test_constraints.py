"""The tested versions can be installed with every Python that Danlu says it runs on."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]


def test_no_tested_version_needs_a_newer_python_than_danlu():
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    oldest = oldest.removeprefix(">=") + ".0"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("==")[0] for line in lines if "==" in line]
    looked_at, refused = 0, {}
    for name in names:
        try:
            wanted = metadata(name).get("Requires-Python")
        except PackageNotFoundError:  # what only builds the package is not installed
            continue
        looked_at += 1
        if wanted and oldest not in SpecifierSet(wanted):
            refused[name] = wanted
    assert looked_at > len(names) * 0.9
    assert not refused

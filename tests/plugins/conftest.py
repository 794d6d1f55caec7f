"""The example package, really built and installed into a folder of its own that this process and its children see."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """Install the example with pip, as people do; return the folder."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "-t", str(target), str(source)], check=True)
    return target


def make_visible(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a folder where this interpreter and those it starts look for packages."""
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    importlib.invalidate_caches()


@pytest.fixture
def example(built, monkeypatch) -> Path:
    """The example package, installed for one test."""
    make_visible(built, monkeypatch)
    return built

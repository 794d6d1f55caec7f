"""What tests of runs start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from danlu.settings import Home
from tests.jobs.homes import write_material


@pytest.fixture(scope="package")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model and a file of twelve rows; not to be changed."""
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").make()

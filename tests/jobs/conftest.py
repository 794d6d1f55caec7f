"""What tests of runs start from."""

from __future__ import annotations

import os
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


@pytest.fixture
def no_tracker_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine on which no tracker is configured."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "SWANLAB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.chdir(tmp_path)

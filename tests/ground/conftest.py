"""Where LLaMA-Factory's files lie in tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.files import ROWS, write_json_rows
from tests.ground.llamafactory import INFO


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder as LLaMA-Factory's, in which Danlu is started."""
    (tmp_path / "data").mkdir()
    write_json_rows(tmp_path / "data" / "identity.json", ROWS)
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path

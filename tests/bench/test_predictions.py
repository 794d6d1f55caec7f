"""The measurement of predictions runs a real case and counts what is near enough."""

from __future__ import annotations

import json

from bench import predictions
from bench.predictions import Case, summary
from tests.tiny import write_tiny_model


def test_the_shares_count_time_within_20_and_memory_within_15_percent():
    near, far = Case("a", 10.0, 11.9, 100, 114), Case("b", 10.0, 7.9, 100, 116)
    assert summary([near, far]) == {"time_within_20_percent": 0.5, "memory_within_15_percent": 0.5}


def test_a_real_case_is_run_and_compared(tmp_path, capsys):
    model = write_tiny_model(tmp_path / "tiny")
    capsys.readouterr()  # what libraries print when they are first imported
    words = ["--model", str(model), "--only", "ten-rows/given", "--set", "train.num_train_epochs=1", "--json"]
    assert predictions.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    (case,) = told["cases"]
    assert case["name"] == "ten-rows/given"
    assert case["seconds"] > 0
    assert case["predicted_seconds"] > 0
    assert case["peak_bytes"] > 50_000_000

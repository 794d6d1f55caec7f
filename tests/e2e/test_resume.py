"""A run of the real starter model that is killed and goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import ROWS
from tests.e2e.program import MODEL, assert_gone, danlu, put_model, started, until

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.timeout(1800)]

EXACT = (
    f"model={MODEL}",
    f"data.train={ROWS}",
    "data.holdout=0",
    "train.dtype=float32",
    "train.num_train_epochs=1",
    "train.batch_size=1",
    "eval.every=3",
)


def test_a_killed_run_resumes_and_ends_with_the_very_same_weights(starter: Path, tmp_path: Path) -> None:
    plain = put_model(starter, tmp_path / "plain")
    whole = danlu(plain, "train", *EXACT, "--json", OMP_NUM_THREADS="1")
    assert whole.code == 0, whole.err
    report = whole.json()
    assert set(report) == {
        "run",
        "status",
        "steps",
        "epochs",
        "train_loss",
        "heldout_loss_before",
        "heldout_loss",
        "examples_per_second",
        "tokens_per_second",
        "seconds",
        "peak_rss_bytes",
        "plan",
        "prediction_error",
        "adapter",
    }

    broken = put_model(starter, tmp_path / "broken")
    with started(broken, "train", *EXACT, "--json", OMP_NUM_THREADS="1") as train:
        until(lambda: list((broken / "runs").glob("*/checkpoints/step-*")), every=0.01)
        worker = train.child("danlu.jobs.forge_child")
        worker.send_signal(signal.SIGKILL)
        assert train.wait() == 1
    assert_gone([worker])
    assert train.out == ""
    (error,) = [line for line in train.err.splitlines() if line.startswith("Error:")]
    assert "SIGKILL" in error
    assert "Traceback" not in train.err

    (run,) = (broken / "runs").iterdir()
    assert not (run / "adapter").exists(), "it was killed too late to test anything"
    shown = danlu(broken, "runs", "list", "--json").json()
    assert shown["runs"][0]["status"] == "interrupted"
    resumed = danlu(broken, "runs", "resume", run.name, "--json", OMP_NUM_THREADS="1")
    assert resumed.code == 0, resumed.err
    assert resumed.json()["status"] == "finished"
    assert resumed.json()["steps"] == report["steps"]
    assert resumed.json()["train_loss"] == report["train_loss"]
    one, other = (Path(made["adapter"]) / "adapter_model.safetensors" for made in (report, resumed.json()))
    assert one.read_bytes() == other.read_bytes()
    steps = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["seq"] for event in steps] == list(range(steps[0]["seq"], steps[0]["seq"] + len(steps)))
    assert danlu(broken, "runs", "resume", run.name).code == 1, "a finished run has nothing to continue"

"""The program interrupted: Ctrl-C at every moment, killed commands, another terminal, a model that is damaged.

The model is small and has learned nothing, but each of its steps takes long enough to be interrupted in.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from danlu.models.library import ModelLibrary
from danlu.settings import Home
from tests.e2e.program import (
    MODEL,
    assert_gone,
    cmdline,
    danlu,
    files_of,
    interrupt,
    one_line,
    partial_files,
    started,
    until,
    working_in,
)
from tests.tiny import tiny_config, tiny_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WORKER = "danlu.jobs.forge_child"
ROWS = Path(__file__).with_name("five_rows_zh.json")
SMALL = ("quickstart", "--model", "small", "--data", ROWS, "--no-serve", "--json")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands choose how many threads they compute with, as they do for people."""
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose thirteen steps take three seconds."""
    from transformers import LlamaForCausalLM

    config = tiny_config("llama")
    config.hidden_size, config.intermediate_size, config.head_dim, config.num_hidden_layers = 256, 512, 64, 4
    folder = tmp_path_factory.mktemp("model") / "small"
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def home(model: Path, tmp_path: Path) -> Path:
    """A home with that model."""
    home = Home(tmp_path / "home").make()
    ModelLibrary(home).add(model, "small")
    return home.root


def test_ctrl_c_while_the_model_is_pulled(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home, "quickstart", "--data", ROWS, "--no-serve", "--json") as process:
        process.says("Pulling")
        interrupt(process)
    assert files_of(home, "models") == []
    assert files_of(home, "runs") == []


def test_ctrl_c_at_every_moment_of_a_run_which_then_goes_on(home: Path) -> None:
    with started(home, *SMALL) as process:
        process.says("The plan")
        until(lambda: files_of(home, "runs"), every=0.01)
        interrupt(process)
    assert files_of(home, "runs") == []

    with started(home, *SMALL) as process:
        events = until(lambda: next((home / "runs").glob("*/events.jsonl"), None))
        until(lambda: '"type": "step"' in events.read_text(encoding="utf-8"))
        interrupt(process)
    run = events.parent
    assert f"danlu runs resume {run.name}" in process.err
    *_, checkpoint = sorted((run / "checkpoints").glob("step-*"))
    assert danlu(home, "runs", "list", "--json").json()["runs"][0]["status"] == "stopped"

    with started(home, *SMALL) as process:
        process.says(f"Going on with {run.name}")
        until(lambda: events.read_text(encoding="utf-8").count('"type": "started"') == 2)
        steps = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        again = [event for event in steps if event["type"] == "started"][-1]
        assert f"step-{again['from_step']:06d}" == checkpoint.name
        interrupt(process)
    assert files_of(home, "versions") == []

    with started(home, *SMALL) as process:
        process.says("Proof:")
        interrupt(process)
    assert "runs resume" not in process.err, "training is done, there is nothing to resume"
    assert not (run / "proof.json").exists()

    with started(home, *SMALL) as process:
        process.says("Export:")
        interrupt(process)
    assert (run / "proof.json").exists()
    assert files_of(home, "versions") == []
    assert files_of(home, "runs") == [run.name]


def test_children_do_not_outlive_a_command_that_is_killed(home: Path) -> None:
    with started(home, *SMALL) as process:
        worker = process.child(WORKER)
        process.says("The plan")
        process.signal(signal.SIGKILL)
        process.wait()
        assert_gone([worker])
    assert working_in(home) == []


def test_a_download_that_is_killed_leaves_nothing_under_the_models_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home, "models", "pull", MODEL) as process:
        process.says("Pulling")
        child = process.child("danlu.models.sources.pip_child")
        process.signal(signal.SIGKILL)
        process.wait()
        assert_gone([child])
    assert danlu(home, "models", "show", MODEL, "--json").json()["here"] is False
    assert [name for name in files_of(home, "models") if not name.startswith(".")] == []


def test_a_damaged_model_is_noticed_before_anything_is_trained(home: Path) -> None:
    weights = home / "models" / "small" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused = danlu(home, "train", "model=small", f"data.train={ROWS}")
    assert refused.code == 1
    assert "model.safetensors" in one_line(refused)
    assert files_of(home, "runs") == []


def test_a_run_stopped_from_another_terminal_saves_what_it_has(home: Path) -> None:
    with started(home, "train", "model=small", f"data.train={ROWS}", "train.num_train_epochs=400") as train:
        run = until(lambda: next((p.parent for p in (home / "runs").glob("*/events.jsonl")), None))
        until(lambda: '"type": "step"' in (run / "events.jsonl").read_text(encoding="utf-8"))
        asked = danlu(home, "runs", "stop", run.name)
        assert asked.code == 0, asked.err
        assert train.wait() == 0
    assert f"danlu runs resume {run.name}" in train.err
    assert list((run / "checkpoints").glob("step-*"))
    assert danlu(home, "runs", "list", "--json").json()["runs"][0]["status"] == "stopped"
    assert partial_files(home) == []


def test_no_process_of_these_tests_is_left() -> None:
    mine = psutil.Process(os.getpid()).children(recursive=True)
    assert [cmdline(child) for child in mine if "danlu" in cmdline(child)] == []

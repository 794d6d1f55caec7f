"""What goes wrong around a whole program: taken ports, killed engines, two servers, Ctrl-C at every moment."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROWS, Trained
from tests.e2e.program import (
    MODEL,
    Ended,
    Server,
    Started,
    assert_gone,
    cmdline,
    danlu,
    partial_files,
    put_model,
    serving,
    started,
    until,
    working_in,
)

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.timeout(1800)]

INTERRUPTED = 130
ENGINE = "danlu.serving.llamacpp_child"
WORKER = "danlu.jobs.forge_child"
QUICKSTART = ("quickstart", "--data", ROWS, "--no-serve", "--json")


def one_line(ended: Ended | Started) -> str:
    """The one line on stderr that says what went wrong."""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("Error:")]
    return line


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("command", [("up", "--no-open"), ("quickstart", "--data", ROWS)])
def test_a_taken_port_is_one_line_with_what_to_do(home: Path, command: tuple[object, ...]) -> None:
    with taken_port() as port:
        refused = danlu(home, *command, "--port", port)
    assert refused.code == 1
    assert str(port) in one_line(refused)
    assert "--port" in one_line(refused)
    assert refused.out == ""
    assert working_in(home) == []


def test_a_second_server_on_one_home_is_sent_to_the_first(server: Server, home: Path) -> None:
    second = danlu(home, "up", "--port", 0, "--no-open")
    assert second.code == 1
    assert str(server.popen.pid) in one_line(second)
    assert server.get("/health")["status"] == "healthy"


def test_a_home_is_free_again_after_a_server_was_killed(home: Path) -> None:
    with serving(home) as first:
        first.until_ready()
        below = first.children()
        assert any(ENGINE in cmdline(process) for process in below)
        first.signal(signal.SIGKILL)
        first.wait()
        assert_gone(below)
    with serving(home) as second:
        second.until_ready()
        assert second.get("/answer?prompt=hello&max_tokens=4")["generated_text"]


def test_an_engine_that_is_killed_in_mid_answer_is_told_in_the_stream_and_comes_back(server: Server) -> None:
    engine = server.child(ENGINE)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    # A prompt of the end token's own making would end at once; high temperature keeps the small model talking.
    asked = {
        "messages": [{"role": "user", "content": "Tell me everything about the sea."}],
        "stream": True,
        "max_tokens": 4000,
        "temperature": 1.8,
        "top_p": 1.0,
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    lines = []
    killed = False
    for raw in answer:
        line = raw.decode("utf-8").strip()
        if line.startswith("data: "):
            lines.append(line.removeprefix("data: "))
        if not killed and '"content"' in line and len(lines) > 1:
            engine.send_signal(signal.SIGKILL)
            killed = True
    connection.close()
    assert killed
    assert lines[-1] != "[DONE]", "the answer ended before the engine was killed"
    problem = json.loads(lines[-1])["error"]
    assert problem["message"]
    assert "Traceback" not in problem["message"]

    server.until_ready()
    again = server.child(ENGINE)
    assert again.pid != engine.pid
    assert "阿澈" in server.get("/answer?prompt=%E4%BD%A0%E6%98%AF%E8%B0%81%EF%BC%9F")["generated_text"]
    assert server.get("/health")["status"] == "healthy"


def interrupt(process: Started) -> None:
    """Press Ctrl-C once and insist on an orderly end: nobody left, nothing half-written, no traceback."""
    below = process.children()
    process.signal(signal.SIGINT)
    assert process.wait() == INTERRUPTED, process.err
    assert_gone(below)
    assert working_in(process.home) == []
    assert partial_files(process.home) == []
    assert "Traceback" not in process.err
    assert process.out == ""


def files_of(home: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (home / folder).iterdir()) if (home / folder).is_dir() else []


def test_ctrl_c_while_the_model_is_pulled(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home, *QUICKSTART) as process:
        process.says("Pulling")
        interrupt(process)
    assert files_of(home, "models") == []
    assert files_of(home, "runs") == []


def test_ctrl_c_while_it_is_planned_and_while_it_trains_then_it_goes_on(starter: Path, tmp_path: Path) -> None:
    home = put_model(starter, tmp_path / "home")
    with started(home, *QUICKSTART) as process:
        process.says("The plan")
        until(lambda: files_of(home, "runs"))
        interrupt(process)
    assert files_of(home, "runs") == []

    with started(home, *QUICKSTART) as process:
        events = until(lambda: next((home / "runs").glob("*/events.jsonl"), None))
        until(lambda: '"type": "step"' in events.read_text(encoding="utf-8"))
        interrupt(process)
    run = events.parent
    assert f"danlu runs resume {run.name}" in process.err
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert danlu(home, "runs", "list", "--json").json()["runs"][0]["status"] == "stopped"

    with started(home, *QUICKSTART) as process:
        process.says(f"Going on with {run.name}")
        until(lambda: events.read_text(encoding="utf-8").count('"type": "started"') == 2)
        steps = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        again = [event for event in steps if event["type"] == "started"][-1]
        assert f"step-{again['from_step']:06d}" == checkpoint.name
        interrupt(process)
    assert files_of(home, "versions") == []


@pytest.fixture
def untold(home: Path) -> Path:
    """A home whose run has finished, without proof and version."""
    for folder in (home / "versions").iterdir():
        shutil.rmtree(folder)
    (proof,) = (home / "runs").glob("*/proof.json")
    proof.unlink()
    return home


def test_ctrl_c_at_the_proof_and_at_the_export(untold: Path, trained: Trained) -> None:
    home, run = untold, untold / "runs" / trained.result["run"]
    with started(home, *QUICKSTART) as process:
        process.says("Proof:")
        interrupt(process)
    assert "runs resume" not in process.err, "training is done, there is nothing to resume"
    assert not (run / "proof.json").exists()

    with started(home, *QUICKSTART) as process:
        process.says("Export:")
        interrupt(process)
    assert (run / "proof.json").exists()
    assert files_of(home, "versions") == []
    assert files_of(home, "runs") == [run.name]


def test_ctrl_c_at_the_first_answer_and_while_it_serves(home: Path) -> None:
    with started(home, *QUICKSTART) as process:
        process.says("Full report")
        process.child(ENGINE)
        interrupt(process)

    with started(home, "quickstart", "--data", ROWS, "--port", 0) as process:
        process.says("Danlu is ready")
        below = process.children()
        process.signal(signal.SIGINT)
        assert process.wait() == 0, process.err
    assert_gone(below)
    assert working_in(home) == []
    assert partial_files(home) == []


def test_children_do_not_outlive_a_command_that_is_killed(starter: Path, tmp_path: Path) -> None:
    home = put_model(starter, tmp_path / "home")
    with started(home, *QUICKSTART) as process:
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


def test_a_damaged_model_is_noticed_before_anything_is_trained(starter: Path, tmp_path: Path) -> None:
    home = put_model(starter, tmp_path / "home")
    weights = home / "models" / MODEL / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # the file is shared with other homes
    weights.write_bytes(whole[:-1000])
    refused = danlu(home, "train", f"model={MODEL}", f"data.train={ROWS}")
    assert refused.code == 1
    assert "model.safetensors" in one_line(refused)
    assert files_of(home, "runs") == []


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    refused = danlu(blocked / "home", "quickstart", "--data", ROWS, "--no-serve")
    assert refused.code == 1
    assert str(blocked) in one_line(refused)


def test_no_process_of_these_tests_is_left() -> None:
    mine = psutil.Process(os.getpid()).children(recursive=True)
    assert [cmdline(child) for child in mine if "danlu" in cmdline(child)] == []

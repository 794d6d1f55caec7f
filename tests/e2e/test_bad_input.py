"""What goes wrong around a finished assistant: taken ports, killed engines, two servers, Ctrl-C while it serves."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROWS
from tests.e2e.program import (
    Server,
    assert_gone,
    cmdline,
    danlu,
    interrupt,
    one_line,
    partial_files,
    serving,
    started,
    working_in,
)

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.timeout(1800)]

ENGINE = "danlu.serving.llamacpp_child"
QUICKSTART = ("quickstart", "--data", ROWS, "--no-serve", "--json")


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


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    refused = danlu(blocked / "home", "quickstart", "--data", ROWS, "--no-serve")
    assert refused.code == 1
    assert str(blocked) in one_line(refused)


def test_no_process_of_these_tests_is_left() -> None:
    mine = psutil.Process(os.getpid()).children(recursive=True)
    assert [cmdline(child) for child in mine if "danlu" in cmdline(child)] == []

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from danlu.errors import ConflictError, DanluError, MachineError, StoreError, UsageError
from danlu.server.run import listen, serve
from danlu.store.home_lock import HomeLock
from danlu.store.store import Store
from tests.server.clients import Tab, fetch, new_conversation
from tests.server.running import Running, running, scripted

TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def process(home: Path) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """The demo server (slow scripted answers) as a process of its own."""
    command = [sys.executable, str(TESTS / "server" / "demo.py"), "0", str(home), "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as started:
        try:
            url = started.stdout.readline().strip()
            assert url.startswith("http://")
            yield started, Running(url, None, None)
        finally:
            started.kill()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", "en")


def refusal(*arguments) -> DanluError:
    with pytest.raises(DanluError) as caught:
        listen(*arguments)
    assert caught.value.message("zh")
    return caught.value


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = refusal("127.0.0.1", port)
    assert isinstance(error, MachineError)
    assert str(port) in error.what("en")
    assert "--port" in error.fix("en")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "", "127.0.0.1.evil.example"])
def test_only_loopback_is_served_until_there_are_accounts(host: str) -> None:
    error = refusal(host, 0)
    assert isinstance(error, UsageError)
    assert error.key == "server.not_loopback"


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    assert refusal("127.0.0.1", port).key == "server.bad_port"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_every_loopback_name_can_be_served(tmp_path: Path, host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listen(host, 0).close()
    except MachineError as error:
        pytest.skip(f"{host} cannot be used here: {error}")
    with running(scripted(tmp_path), host) as server:
        shown = f"[{host}]" if ":" in host else host
        assert server.url.startswith(f"http://{shown}:")
        assert fetch(server, "GET", "/livez").status == 200


def test_a_second_server_on_the_same_home_is_told_who_has_it(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        with pytest.raises(ConflictError) as caught, running(scripted(tmp_path)):
            pass
        assert caught.value.key == "ground.home_in_use"
        assert str(os.getpid()) in caught.value.message("en")
        assert fetch(server, "GET", "/livez").status == 200
    with running(scripted(tmp_path)) as server:
        assert fetch(server, "GET", "/livez").status == 200


def test_a_server_that_finds_its_port_taken_gives_its_home_free(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        services = scripted(tmp_path)
        with pytest.raises(MachineError, match="--port"):
            asyncio.run(serve(services, "127.0.0.1", other.getsockname()[1]))
    with HomeLock(tmp_path):
        pass


def test_a_second_server_on_home_and_port_hears_of_the_home(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server, pytest.raises(ConflictError) as caught:
        asyncio.run(serve(scripted(tmp_path), "127.0.0.1", int(server.netloc.rpartition(":")[2])))
    assert caught.value.key == "ground.home_in_use"


def test_a_database_that_cannot_be_opened_gives_home_and_port_free(tmp_path: Path) -> None:
    (tmp_path / "danlu.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        asyncio.run(serve(scripted(tmp_path), "127.0.0.1", 0))
    with HomeLock(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_running_answer_and_ends_with_success(tmp_path: Path, number: int) -> None:
    with process(tmp_path) as (started, server):
        tab = Tab(server, new_conversation(server)).connect()
        answer = tab.send()["assistant_message_id"]
        tab.until(lambda t: len(t.text(answer)) > 5)
        started.send_signal(number)
        assert started.wait(15) == 0
    with Store.open(tmp_path / "danlu.db") as store:
        saved = store.messages.thread(tab.conversation_id)[1][1]
        assert saved.status == "interrupted"
        assert saved.content.startswith(tab.text(answer))


def test_a_killed_server_loses_at_most_the_last_moment_and_comes_back(tmp_path: Path) -> None:
    with process(tmp_path) as (started, server):
        tab = Tab(server, new_conversation(server)).connect()
        answer = tab.send("hello")["assistant_message_id"]
        begun = time.monotonic()
        # The text is saved about once a second.
        tab.until(lambda t: len(t.text(answer)) > 5 and time.monotonic() - begun > 3)
        started.kill()
        started.wait()
        tab.cut()
    with running(scripted(tmp_path)) as server:
        tab.server = server
        tab.connect().until(lambda t: t.snapshots == 2)
        assert tab.status(answer) == "interrupted"
        assert len(tab.text(answer)) > 5
        assert tab.conversation["generating"] is False


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with process(tmp_path) as (started, _server):
        started.send_signal(signal.SIGINT)
        while started.poll() is None:
            started.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert started.returncode in {0, 130}

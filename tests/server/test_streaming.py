"""An engine never works for a caller who has left, whichever way the caller asked."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from pathlib import Path

import pytest

from danlu.errors import EngineError
from danlu.serving.gateway import Limits
from tests.chat.engines import Script
from tests.server.clients import fetch, until
from tests.server.running import Running, running, scripted

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def gated(**changes) -> Script:
    return Script(gate=asyncio.Semaphore(0), **changes)


def release(server: Running, count: int) -> None:
    server.call(lambda: [server.services.script.gate.release() for _ in range(count)])


def health(server: Running):
    return server.services.registry.get("Danlu").gateway.health()


def begin(server: Running, method: str, path: str, value=None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(server.netloc, timeout=10)
    body = None if value is None else json.dumps(value)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("GET", "/answer?prompt=hi&stream=true", None),
        ("POST", "/answer", {"prompt": "hi", "stream": True}),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    ],
)
def test_a_reader_who_leaves_in_the_middle_of_a_stream_stops_the_engine(
    tmp_path: Path, method: str, path: str, value
) -> None:
    with running(scripted(tmp_path, gated())) as server:
        connection = begin(server, method, path, value)
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.getheader("content-type").startswith("text/event-stream")
        assert reply.getheader("x-accel-buffering") == "no"
        release(server, 1)
        line = b""
        while b"Hello" not in line:
            line = reply.readline()
        assert health(server).running == 1
        reply.close()
        connection.sock and connection.sock.close()
        connection.close()
        until(lambda: server.services.script.cancelled == 1)
        until(lambda: health(server).running == 0)


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("GET", "/answer?prompt=hi", None),
        ("POST", "/answer", {"prompt": "hi"}),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    ],
)
def test_a_caller_who_leaves_before_the_first_word_stops_the_engine(
    tmp_path: Path, method: str, path: str, value
) -> None:
    with running(scripted(tmp_path, gated())) as server:
        connection = begin(server, method, path, value)
        until(lambda: server.services.script.requests)
        connection.close()
        until(lambda: server.services.script.cancelled == 1)
        until(lambda: health(server).running == 0)


def test_a_caller_who_leaves_the_queue_gives_the_place_free(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(), slots=1)) as server:
        first = begin(server, "GET", "/answer?prompt=one")
        until(lambda: health(server).running == 1)
        second = begin(server, "GET", "/answer?prompt=two")
        until(lambda: health(server).waiting == 1)
        second.close()
        until(lambda: health(server).waiting == 0)
        release(server, 10)
        assert json.loads(first.getresponse().read())["generated_text"] == "Hello, world!"
        assert len(server.services.script.requests) == 1
        first.close()


def test_a_full_queue_says_when_to_come_again_and_health_answers_meanwhile(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(), limits=Limits(queue=1), slots=1)) as server:
        held = [begin(server, "GET", "/answer?prompt=x")]
        until(lambda: health(server).running == 1)
        held.append(begin(server, "GET", "/answer?prompt=x"))
        until(lambda: health(server).waiting == 1)
        for path, value in (("/answer", {"prompt": "x"}), ("/v1/chat/completions", {**CHAT, "stream": True})):
            reply = fetch(server, "POST", path, value)
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) >= 1
        queue = fetch(server, "GET", "/health").json()["queue"]
        assert queue == {"running": 1, "waiting": 1, "capacity": 1}
        release(server, 20)
        assert all(connection.getresponse().status == 200 for connection in held)


def test_old_callers_get_the_answer_alone(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        expected = {"generated_text": "Hello, world!", "model": "Danlu", "finish_reason": "stop"}
        assert fetch(server, "GET", "/answer?prompt=hi&max_length=50&num_beams=4").json() == expected
        assert fetch(server, "POST", "/answer", {"prompt": "hi"}).json() == expected
        chat = fetch(server, "POST", "/v1/chat/completions", CHAT).json()
        assert chat["choices"][0]["message"]["content"] == "Hello, world!"
        assert [item["id"] for item in fetch(server, "GET", "/v1/models").json()["data"]] == ["Danlu"]
        assert fetch(server, "GET", "/v1/models/Danlu").json()["id"] == "Danlu"


def test_an_engine_that_breaks_off_in_a_stream_ends_it_with_an_error(tmp_path: Path) -> None:
    script = Script(fail_after=2, error=EngineError("chat.not_served", reason="killed"))
    with running(scripted(tmp_path, script)) as server:
        body = fetch(server, "POST", "/v1/chat/completions", {**CHAT, "stream": True}).body.decode()
        assert '"error"' in body
        assert "[DONE]" not in body
        assert fetch(server, "POST", "/answer", {"prompt": "x"}).status == 502


def test_many_callers_at_once_all_get_their_answer(tmp_path: Path) -> None:
    with running(scripted(tmp_path, Script(pause=0.01), slots=2)) as server:
        answers = []

        def call() -> None:
            answers.append(fetch(server, "POST", "/answer", {"prompt": "hi"}).json()["generated_text"])

        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["Hello, world!"] * 12


@pytest.mark.parametrize("way", ["stream", "socket"])
def test_a_reader_who_takes_nothing_does_not_keep_the_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("danlu.server.streaming.SLOW_SECONDS", 0.3)
    # More than any buffer between the two holds.
    with running(scripted(tmp_path, Script(pieces=["x" * 1_000_000] * 60), slots=1)) as server:
        with socket.create_connection(server.netloc.split(":")) as reader:
            body = json.dumps({**CHAT, "stream": True})
            if way == "stream":
                lines = ("POST /v1/chat/completions HTTP/1.1", f"Content-Length: {len(body)}")
                reader.sendall(head(server, *lines) + body.encode())
            else:
                lines = ("GET /ws/answers HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade")
                key = "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="
                reader.sendall(head(server, *lines, key, "Sec-WebSocket-Version: 13"))
                assert b"101" in reader.recv(200)
                reader.sendall(masked('{"type": "ask", "id": "q", "prompt": "hi"}'))
            until(lambda: server.services.script.requests)
            until(lambda: health(server).running == 0)
            assert server.services.script.cancelled == 1
        assert fetch(server, "GET", "/health").json()["status"] == "healthy"


def head(server: Running, request: str, *lines: str) -> bytes:
    return "\r\n".join((request, f"Host: {server.netloc}", *lines, "", "")).encode()


def masked(text: str) -> bytes:
    """Return a text frame as clients have to send it, with a mask that changes nothing."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()

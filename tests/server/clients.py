"""Clients for a running server: plain HTTP with full control of headers, and a browser's view of the WebSocket."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from websockets.sync.client import ClientConnection, connect

from tests.server.running import Running


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(
    server: Running,
    method: str,
    path: str,
    value: Any = None,
    *,
    headers: dict[str, str] | None = None,
    body: Any = None,
) -> Reply:
    """Send one request; ``value`` goes as JSON, ``body`` as it is (an iterator goes in chunks)."""
    connection = http.client.HTTPConnection(server.netloc, timeout=30)
    sent = {"Host": server.netloc, **(headers or {})}
    if value is not None:
        body = json.dumps(value).encode()
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body, sent, encode_chunked=body is not None and not isinstance(body, bytes))
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """Wait until ``condition`` is true and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


class Tab:
    """What a browser tab knows of one conversation, built from frames as the web application does it.

    It insists that events come without gaps and without repetition.
    """

    def __init__(self, server: Running, conversation_id: str) -> None:
        self.server = server
        self.conversation_id = conversation_id
        self.epoch: str | None = None
        self.seq: int | None = None
        self.messages: dict[str, dict] = {}
        self.conversation: dict | None = None
        self.snapshots = 0
        self.events = 0
        self.others: list[dict] = []
        self.socket: ClientConnection | None = None

    def connect(self, **options: Any) -> Tab:
        """Connect, subscribe from the last event seen, and return once that is acknowledged."""
        self.socket = connect(self.server.ws, **options).__enter__()
        welcome = json.loads(self.socket.recv(timeout=10))
        assert welcome["type"] == "welcome"
        assert welcome["protocol"] == 1
        known = welcome["epoch"] == self.epoch
        self.epoch = welcome["epoch"]
        self.ask("subscribe", epoch=self.epoch if known else "old", last_seq=self.seq)
        return self

    def cut(self) -> None:
        """Lose the connection as a network does: without a closing handshake."""
        self.socket.socket.close()
        self.socket.close()

    def command(self, kind: str, **fields: Any) -> str:
        """Send a command without waiting."""
        request_id = uuid4().hex
        self.socket.send(
            json.dumps({"id": request_id, "type": kind, "conversation_id": self.conversation_id, **fields})
        )
        return request_id

    def ask(self, kind: str, **fields: Any) -> dict:
        """Send a command and take frames until it is answered."""
        request_id = self.command(kind, **fields)
        while True:
            frame = self.take()
            if frame["type"] in {"ack", "error", "pong"} and frame["id"] == request_id:
                return frame

    def send(self, content: str = "hello", parent: str | None = None, client_id: str | None = None) -> dict:
        """Ask a question and return the acknowledgement."""
        return self.ask("send", client_id=client_id or uuid4().hex, parent_id=parent, content=content)

    def take(self, timeout: float = 15) -> dict:
        """Take one frame and apply it."""
        frame = json.loads(self.socket.recv(timeout=timeout))
        if frame["type"] == "snapshot":
            self.snapshots += 1
            self.conversation, self.seq, self.epoch = frame["conversation"], frame["seq"], frame["epoch"]
            self.messages = {message["id"]: message for message in frame["messages"]}
        elif frame["type"] == "event":
            assert self.seq is not None, "an event before any snapshot"
            assert frame["seq"] == self.seq + 1, f"event {frame['seq']} after {self.seq}"
            self.seq = frame["seq"]
            self.events += 1
            self._apply(frame["event"])
        else:
            self.others.append(frame)
        return frame

    def until(self, condition: Callable[[Tab], Any]) -> Tab:
        """Take frames until ``condition`` holds."""
        while not condition(self):
            self.take()
        return self

    def status(self, message_id: str) -> str | None:
        return self.messages.get(message_id, {}).get("status")

    def text(self, message_id: str) -> str:
        return self.messages.get(message_id, {}).get("content", "")

    def finished(self, message_id: str) -> Callable[[Tab], bool]:
        return lambda tab: tab.status(message_id) not in {None, "queued", "generating"}

    def _apply(self, event: dict) -> None:
        if event["kind"] == "message":
            message = event["message"]
            before = self.messages.get(message["id"])
            if before is not None:
                assert message["content"] == before["content"], "the end of an answer repeats exactly its deltas"
            self.messages[message["id"]] = message
        elif event["kind"] == "delta":
            message = self.messages[event["message_id"]]
            message["content"] += event["content"]
            message["reasoning"] = (message["reasoning"] or "") + event["reasoning"] or message["reasoning"]
        elif event["kind"] == "conversation":
            self.conversation = event["conversation"]


def new_conversation(server: Running) -> str:
    """Make a conversation with the default assistant."""
    reply = fetch(server, "POST", "/api/conversations", {})
    assert reply.status == 201
    return reply.json()["id"]

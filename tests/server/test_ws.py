from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.chat.engines import Script
from tests.server.clients import Tab, fetch, new_conversation, until
from tests.server.running import running, scripted

WORDS = [f"w{number} " for number in range(12)]
TEXT = "".join(WORDS)


def open_gate(server, count: int = 1000) -> None:
    server.call(lambda: [server.services.script.gate.release() for _ in range(count)])


def gated(**changes) -> Script:
    return Script(gate=asyncio.Semaphore(0), **changes)


def test_a_tab_sees_the_question_the_words_and_the_end(tmp_path: Path) -> None:
    with running(scripted(tmp_path, Script(WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        assert tab.ask("ping")["type"] == "pong"
        made = tab.send("你好")
        tab.until(tab.finished(made["assistant_message_id"]))
        tab.until(lambda t: t.conversation["generating"] is False)
        assert tab.snapshots == 1
        assert tab.text(made["user_message_id"]) == "你好"
        assert tab.text(made["assistant_message_id"]) == TEXT
        assert tab.conversation["title"] == "你好"
        assert tab.conversation["leaf_id"] == made["assistant_message_id"]
        news = [frame for frame in tab.others if frame["type"] == "conversations"]
        assert news[-1]["change"] == "upsert"
        thread = fetch(server, "GET", f"/api/conversations/{tab.conversation_id}").json()
        assert (thread["seq"], thread["epoch"]) == (tab.seq, tab.epoch)
        assert thread["messages"] == list(tab.messages.values())


def test_a_connection_cut_after_any_event_resumes_without_loss_or_repetition(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(pieces=WORDS))) as server:
        conversation_id = new_conversation(server)
        watcher, parent = Tab(server, conversation_id).connect(), None
        for cut_after in range(len(WORDS) + 6):
            tab = Tab(server, conversation_id).connect()
            made = tab.send(parent=parent)
            open_gate(server, len(WORDS) // 2)
            start = tab.events
            try:
                while tab.events < start + cut_after:
                    tab.take(timeout=0.3)
            except TimeoutError:
                pass  # there are no more events before the rest is let through
            tab.cut()
            open_gate(server, len(WORDS) - len(WORDS) // 2)
            tab.connect()
            assert tab.snapshots == 1, "the tail is in the log: no snapshot is needed"
            tab.until(tab.finished(made["assistant_message_id"]))
            assert tab.text(made["assistant_message_id"]) == TEXT, cut_after
            parent = made["assistant_message_id"]
            tab.cut()
        watcher.until(watcher.finished(parent))
        assert all(m["content"] == TEXT for m in watcher.messages.values() if m["role"] == "assistant")
        assert watcher.snapshots == 1


def test_any_number_already_seen_gives_exactly_the_rest(tmp_path: Path) -> None:
    with running(scripted(tmp_path, Script(WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        made = tab.send()
        tab.until(lambda t: t.conversation["generating"] is False and t.text(made["assistant_message_id"]) == TEXT)
        for seen in range(tab.seq + 1):
            late = Tab(server, tab.conversation_id)
            late.epoch, late.seq = tab.epoch, seen
            late._apply = lambda event: None  # only the numbers matter here
            late.connect()
            while late.seq < tab.seq:
                late.take()
            assert late.snapshots == 0
            late.socket.close()


@pytest.mark.parametrize("seen", [-1, 10**9])
def test_a_number_that_cannot_be_gives_a_snapshot(tmp_path: Path, seen: int) -> None:
    with running(scripted(tmp_path)) as server:
        tab = Tab(server, new_conversation(server)).connect()
        other = Tab(server, tab.conversation_id)
        other.epoch, other.seq = tab.epoch, seen
        other.connect()
        other.until(lambda t: t.snapshots)
        assert other.seq == tab.seq if tab.seq is not None else True


def test_two_tabs_see_the_same_and_either_may_stop(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(pieces=WORDS))) as server:
        conversation_id = new_conversation(server)
        one, two = Tab(server, conversation_id).connect(), Tab(server, conversation_id).connect()
        made = one.send()
        answer = made["assistant_message_id"]
        open_gate(server, 3)
        two.until(lambda t: t.text(answer) == "".join(WORDS[:3]))
        assert two.ask("stop", message_id=answer)["type"] == "ack"
        for tab in (one, two):
            tab.until(lambda t: t.conversation["generating"] is False and t.status(answer) == "stopped")
        assert one.messages == two.messages
        assert server.services.script.cancelled == 1
        open_gate(server)
        again = two.ask("regenerate", client_id=uuid4().hex, message_id=answer)["assistant_message_id"]
        for tab in (one, two):
            tab.until(tab.finished(again))
        assert one.text(again) == two.text(again) == TEXT
        assert one.messages[again]["parent_id"] == one.messages[answer]["parent_id"]


def test_an_answer_goes_on_when_every_tab_is_closed(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(pieces=WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        made = tab.send()
        tab.cut()
        open_gate(server)
        thread = f"/api/conversations/{tab.conversation_id}"
        until(lambda: not fetch(server, "GET", thread).json()["conversation"]["generating"])
        tab.connect()
        tab.until(tab.finished(made["assistant_message_id"]))
        assert tab.text(made["assistant_message_id"]) == TEXT


def test_a_question_sent_again_over_a_new_connection_is_not_asked_twice(tmp_path: Path) -> None:
    with running(scripted(tmp_path, Script(WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        client_id = uuid4().hex
        tab.command("send", client_id=client_id, parent_id=None, content="hello")
        tab.cut()  # before the acknowledgement was read
        tab.connect()
        made = tab.send("hello", client_id=client_id)
        again = tab.send("hello", client_id=client_id)
        assert made["assistant_message_id"] == again["assistant_message_id"]
        tab.until(tab.finished(made["assistant_message_id"]))
        assert len(tab.messages) == 2
        assert len(server.services.script.requests) == 1


def test_a_restart_interrupts_and_old_numbers_give_a_snapshot(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(pieces=WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        made = tab.send()
        open_gate(server, 3)
        tab.until(lambda t: t.text(made["assistant_message_id"]) == "".join(WORDS[:3]))
    with pytest.raises(ConnectionClosed) as closed:
        tab.until(lambda _: False)
    assert closed.value.rcvd.code == 1001
    assert tab.status(made["assistant_message_id"]) == "interrupted", "the last event came before the end"
    with running(scripted(tmp_path, Script(WORDS))) as server:
        tab.server = server
        tab.connect().until(lambda t: t.snapshots == 2)
        assert tab.status(made["assistant_message_id"]) == "interrupted"
        assert tab.text(made["assistant_message_id"]) == "".join(WORDS[:3])
        again = tab.ask("regenerate", client_id=uuid4().hex, message_id=made["assistant_message_id"])
        tab.until(tab.finished(again["assistant_message_id"]))
        assert tab.text(again["assistant_message_id"]) == TEXT


def narrow_socket(server) -> socket.socket:
    """A connection through which little fits while nobody reads."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", int(server.netloc.rpartition(":")[2])))
    return narrow


def test_a_reader_too_slow_for_the_log_gets_a_snapshot_and_then_the_whole_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("danlu.chat.room.LOG_EVENTS", 20)
    pieces = [f"{number:05} " + "x" * 8000 for number in range(600)]
    with running(scripted(tmp_path, Script(pieces))) as server:
        conversation_id = new_conversation(server)
        slow = Tab(server, conversation_id).connect(sock=narrow_socket(server), max_queue=1, max_size=None)
        slow.until(lambda t: t.snapshots == 1)
        made = slow.send()
        thread = f"/api/conversations/{conversation_id}"
        until(lambda: not fetch(server, "GET", thread).json()["conversation"]["generating"], 60)
        slow.until(slow.finished(made["assistant_message_id"]))
        assert slow.text(made["assistant_message_id"]) == "".join(pieces)
        assert slow.snapshots > 1
        assert slow.events < 600


def test_a_socket_that_nobody_reads_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    pieces = ["x" * 8000] * 600
    with running(scripted(tmp_path, Script(pieces))) as server:
        conversation_id = new_conversation(server)
        stuck = Tab(server, conversation_id).connect(sock=narrow_socket(server), max_queue=1, max_size=None)
        stuck.send()
        thread = f"/api/conversations/{conversation_id}"
        until(lambda: not fetch(server, "GET", thread).json()["conversation"]["generating"], 60)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20, "minutes would mean that it waited for the socket"


@pytest.mark.parametrize(
    ("frame", "command_id"),
    [
        ("", None),
        ("not json", None),
        ("[]", None),
        ("null", None),
        ("{}", None),
        ('{"id": "7", "type": "fly"}', "7"),
        ('{"id": "7"}', "7"),
        ('{"id": "7", "type": "send", "conversation_id": "c"}', "7"),
        ('{"id": "7", "type": "subscribe", "conversation_id": "' + "x" * 65 + '"}', "7"),
        ('{"id": "7", "type": "send", "client_id": "k", "conversation_id": "c", "content": "\\ud800"}', None),
        (b"\x00\xff", None),
    ],
)
def test_what_is_no_command_is_answered_with_a_problem_and_the_socket_lives_on(
    tmp_path: Path, frame, command_id: str | None
) -> None:
    with running(scripted(tmp_path)) as server, connect(server.ws + "?lang=zh") as ws:
        ws.recv(timeout=5)
        ws.send(frame)
        answer = json.loads(ws.recv(timeout=5))
        assert answer["type"] == "error"
        assert answer["id"] == command_id
        assert answer["problem"]["status"] == 422
        assert answer["problem"]["title"].startswith("请求无效")
        ws.send('{"id": "8", "type": "ping"}')
        assert json.loads(ws.recv(timeout=5)) == {"type": "pong", "id": "8"}


def test_commands_about_what_does_not_exist_are_refused_with_the_reason(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        tab = Tab(server, new_conversation(server)).connect()
        nowhere = {"conversation_id": "nothing"}
        for kind, fields in (
            ("subscribe", {}),
            ("send", {"client_id": "k", "content": "x"}),
            ("regenerate", {"client_id": "k", "message_id": "m"}),
            ("stop", {"message_id": "m"}),
        ):
            answer = tab.ask(kind, **fields, **nowhere)
            assert (answer["type"], answer["problem"]["code"]) == ("error", "store.conversation_missing")
        assert tab.ask("stop", message_id="m")["problem"]["code"] == "store.message_missing"
        assert tab.ask("unsubscribe", **nowhere)["type"] == "ack"


def test_a_frame_that_is_too_large_ends_the_socket_with_the_right_code(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server, connect(server.ws) as ws:
        ws.recv(timeout=5)
        ws.send("x" * (256 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1009


def test_unsubscribing_ends_the_events(tmp_path: Path) -> None:
    with running(scripted(tmp_path, gated(pieces=WORDS))) as server:
        tab = Tab(server, new_conversation(server)).connect()
        made = tab.send()
        tab.ask("unsubscribe")
        seen = tab.events
        open_gate(server)
        thread = f"/api/conversations/{tab.conversation_id}"
        until(lambda: not fetch(server, "GET", thread).json()["conversation"]["generating"])
        tab.ask("ping")
        assert tab.events == seen
        tab.ask("subscribe", epoch=tab.epoch, last_seq=tab.seq)
        tab.until(tab.finished(made["assistant_message_id"]))
        assert tab.text(made["assistant_message_id"]) == TEXT


def test_every_tab_hears_of_new_renamed_and_deleted_conversations_and_of_engines(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        tab = Tab(server, new_conversation(server)).connect()
        other = new_conversation(server)
        path = f"/api/conversations/{other}"
        tab.until(lambda t: any(f.get("change") == "upsert" and f["conversation"]["id"] == other for f in t.others))
        fetch(server, "PATCH", path, {"title": "新名字"})
        tab.until(lambda t: any(f.get("conversation", {}).get("title") == "新名字" for f in t.others))
        fetch(server, "DELETE", path)
        tab.until(lambda t: any(f.get("change") == "delete" for f in t.others))
        engine = server.services.registry.get("Danlu").gateway.engine
        server.call(engine._states.set, "restarting", "why")
        tab.until(lambda t: any(f["type"] == "engine" for f in t.others))
        state = next(frame for frame in tab.others if frame["type"] == "engine")["assistant"]["engine"]
        assert (state["state"], state["detail"]) == ("restarting", "why")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_foreign_page_gets_no_socket(tmp_path: Path, headers: dict[str, str]) -> None:
    with running(scripted(tmp_path)) as server:
        with pytest.raises(InvalidStatus) as refused:
            connect(server.ws, additional_headers=headers).__enter__()
        assert refused.value.response.status_code == 403


def test_a_foreign_name_for_this_machine_gets_no_socket(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        sock = socket.create_connection(("127.0.0.1", int(server.netloc.rpartition(":")[2])))
        with pytest.raises(InvalidStatus) as refused:
            connect("ws://evil.example/ws", sock=sock).__enter__()
        assert refused.value.response.status_code == 403


def test_the_own_page_gets_a_socket(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server, connect(server.ws, origin=server.url) as ws:
        assert json.loads(ws.recv(timeout=5))["type"] == "welcome"

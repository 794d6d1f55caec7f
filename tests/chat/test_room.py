from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from danlu.chat.room import LOG_CHARACTERS, LOG_EVENTS, Room
from danlu.store.records import Conversation, Message, MessageError

pytestmark = pytest.mark.anyio

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = Message(
    id="m",
    conversation_id="c",
    parent_id=None,
    client_id=None,
    role="assistant",
    status="generating",
    content="",
    reasoning=None,
    error=None,
    provenance=None,
    created_at=WHEN,
    finished_at=None,
)
CONVERSATION = Conversation(
    id="c",
    assistant_id="a",
    title="t",
    pinned=False,
    leaf_id="m",
    created_at=WHEN,
    updated_at=WHEN,
    deleted_at=None,
    generating=False,
)


def room(seq: int = 0) -> Room:
    return Room(CONVERSATION, [ANSWER], seq)


async def test_events_are_numbered_without_gaps_and_the_state_is_their_sum() -> None:
    made = room(5)
    made.append("m", "Hel", "")
    made.append("m", "lo", "hm")
    entries = made.after(5)
    assert [entry.seq for entry in entries] == [6, 7]
    assert [json.loads(entry.frame("en"))["event"]["content"] for entry in entries] == ["Hel", "lo"]
    thread = made.thread("e", "en")
    assert (thread.seq, thread.messages[0].content, thread.messages[0].reasoning) == (7, "Hello", "hm")


async def test_a_reader_who_has_seen_everything_gets_nothing_and_one_from_the_future_a_snapshot() -> None:
    made = room(5)
    assert made.after(5) == []
    assert made.after(6) is None
    assert made.after(4) is None, "what was before this room existed is not in its log"


async def test_the_log_is_bounded_in_events() -> None:
    made = room()
    for _ in range(LOG_EVENTS + 10):
        made.append("m", "x", "")
    assert made.after(9) is None
    assert len(made.after(10)) == LOG_EVENTS


async def test_the_log_is_bounded_in_characters() -> None:
    made = room()
    for _ in range(10):
        made.append("m", "x" * (LOG_CHARACTERS // 4), "")
    assert made.after(0) is None
    assert 1 <= len(made.after(made.seq - 3) or [1]) <= 4
    made.append("m", "x" * (2 * LOG_CHARACTERS), "")
    assert len(made.after(made.seq - 1)) == 1, "the newest event is always there"


async def test_a_conversation_is_generating_as_long_as_one_of_its_messages_is() -> None:
    made = room()
    made.put_conversation(CONVERSATION)
    assert made.conversation.generating
    made.set_status("m", "complete")
    made.put_conversation(CONVERSATION)
    assert not made.conversation.generating


async def test_readers_are_woken_at_every_event_until_they_leave() -> None:
    made, wake = room(), asyncio.Event()
    made.follow(wake.set)
    made.append("m", "x", "")
    assert wake.is_set()
    wake.clear()
    made.unfollow(wake.set)
    made.append("m", "x", "")
    assert not wake.is_set()


async def test_an_error_in_a_frame_is_in_the_readers_language() -> None:
    made = room()
    failed = ANSWER.model_copy(update={"status": "failed", "error": MessageError(code="chat.unexpected", status=500)})
    made.put_message(failed)
    (entry,) = made.after(0)
    titles = {lang: json.loads(entry.frame(lang))["event"]["message"]["error"]["title"] for lang in ("en", "zh")}
    assert titles["en"] != titles["zh"]

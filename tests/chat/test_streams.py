from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from danlu.errors import BusyError, ConflictError, DanluError, EngineError, MachineError, NotFoundError, UsageError
from danlu.models.messages import Message as Turn
from danlu.serving.gateway import Limits
from danlu.store.store import Store
from tests.chat.conftest import Chat, chat
from tests.chat.engines import Script

pytestmark = pytest.mark.anyio


async def ask(c: Chat, conversation_id: str, text: str = "hello", key: str = "k", parent: str | None = None):
    return await c.streams.send(conversation_id, client_id=key, parent_id=parent, content=text)


async def begun(c: Chat, key: str = "k"):
    """Begin a conversation and its first answer."""
    conversation = await c.conversations.create(None)
    return conversation.id, await ask(c, conversation.id, key=key)


def gated(**changes) -> Script:
    return Script(gate=asyncio.Semaphore(0), **changes)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_answer_is_written_saved_and_says_where_it_came_from(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        _, exchange = await begun(c)
        answer = await c.settled(exchange.answer.id)
        assert (answer.status, answer.content, answer.error) == ("complete", "Hello, world!", None)
        assert answer.provenance.assistant == "Danlu"
        assert answer.provenance.version == "Danlu-1"
        assert (answer.provenance.tokens, answer.provenance.finish_reason) == (4, "stop")
        assert answer.provenance.dropped_turns == 0


async def test_what_is_shown_of_an_answer_is_what_is_kept(tmp_path: Path) -> None:
    async with chat(tmp_path, Script(pieces=["a\x00b", "\ud800", "c"])) as c:
        conversation = await c.conversations.create(None)
        async with c.rooms.use(conversation.id) as room:
            exchange = await ask(c, conversation.id)
            answer = await c.settled(exchange.answer.id)
            deltas = [json.loads(entry.frame("en"))["event"] for entry in room.after(0)]
        assert "".join(event.get("content", "") for event in deltas) == answer.content == "ab?c"


async def test_reasoning_is_kept_apart_and_timed(tmp_path: Path) -> None:
    async with chat(tmp_path, Script(pieces=["<think>", "hm", "</think>", "Yes."])) as c:
        _, exchange = await begun(c)
        answer = await c.settled(exchange.answer.id)
        assert (answer.reasoning, answer.content) == ("hm", "Yes.")
        assert answer.provenance.reasoning_seconds is not None


async def test_the_model_is_told_the_branch_and_nothing_else(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation_id, first = await begun(c)
        await c.settled(first.answer.id)
        again = await c.streams.regenerate(conversation_id, client_id="k2", message_id=first.answer.id)
        await c.settled(again.answer.id)
        follow = await ask(c, conversation_id, "and?", "k3", again.answer.id)
        await c.settled(follow.answer.id)
        assert c.script.requests[1].messages == (Turn("user", "hello"),)
        assert c.script.requests[2].messages == (
            Turn("user", "hello"),
            Turn("assistant", "Hello, world!"),
            Turn("user", "and?"),
        )


async def test_turns_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    async with chat(tmp_path, context=60) as c:
        conversation_id, exchange = await begun(c)
        for number in range(3):
            answer = await c.settled(exchange.answer.id)
            assert answer.status == "complete"
            exchange = await ask(c, conversation_id, "x" * 15, f"q{number}", answer.id)
        answer = await c.settled(exchange.answer.id)
        assert answer.provenance.dropped_turns == 3
        assert [turn.content for turn in c.script.requests[-1].messages] == ["x" * 15]


async def test_a_question_longer_than_the_context_fails_with_the_reason(tmp_path: Path) -> None:
    async with chat(tmp_path, context=40) as c:
        conversation = await c.conversations.create(None)
        exchange = await ask(c, conversation.id, "x" * 50)
        answer = await c.settled(exchange.answer.id)
        assert (answer.status, answer.error.code, answer.error.status) == ("failed", "serving.prompt_too_long", 413)


async def test_stop_frees_the_engine_and_keeps_the_text(tmp_path: Path) -> None:
    async with chat(tmp_path, gated()) as c:
        conversation_id, exchange = await begun(c)
        c.script.gate.release()
        c.script.gate.release()
        async with c.rooms.use(conversation_id) as room:
            await until(lambda: room.messages[exchange.answer.id].content == "Hello, ")
            await c.streams.stop(conversation_id, exchange.answer.id)
            # The acknowledgement means that it is saved.
            saved = c.store.messages.thread(conversation_id)[1][1]
            assert (saved.status, saved.content) == ("stopped", "Hello, ")
            assert (saved.provenance.finish_reason, saved.provenance.tokens) == ("cancelled", 2)
            assert room.messages[exchange.answer.id] == saved
        assert c.script.cancelled == 1
        assert c.directory.door(c.assistant.id).gateway.health().running == 0


async def test_stopping_twice_or_after_the_end_changes_nothing(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation_id, exchange = await begun(c)
        before = await c.settled(exchange.answer.id)
        await c.streams.stop(conversation_id, exchange.answer.id)
        assert await c.settled(exchange.answer.id) == before
        with pytest.raises(NotFoundError):
            await c.streams.stop(conversation_id, "nothing")


async def test_an_answer_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    async with chat(tmp_path, gated(), slots=1) as c:
        _, running = await begun(c, "k1")
        conversation_id, waiting = await begun(c, "k2")
        async with c.rooms.use(conversation_id) as room:
            await until(lambda: c.directory.door(c.assistant.id).gateway.health().waiting == 1)
            await c.streams.stop(conversation_id, waiting.answer.id)
            kinds = [entry.frame("en") for entry in room.after(0) or []]
        assert any('"kind":"queue"' in frame and '"position":1' in frame for frame in kinds)
        stopped = await c.settled(waiting.answer.id)
        assert (stopped.status, stopped.content, stopped.provenance) == ("stopped", "", None)
        assert c.streams.running_answer(running.answer.id) is not None


async def test_a_broken_engine_makes_a_failed_answer_that_can_be_generated_again(tmp_path: Path) -> None:
    script = Script(fail_after=2, error=EngineError("chat.not_served", "engine", reason="killed"))
    async with chat(tmp_path, script) as c:
        conversation_id, exchange = await begun(c)
        failed = await c.settled(exchange.answer.id)
        assert (failed.status, failed.content, failed.error.code) == ("failed", "Hello, ", "chat.not_served")
        script.fail_after = None
        again = await c.streams.regenerate(conversation_id, client_id="k2", message_id=failed.id)
        assert (await c.settled(again.answer.id)).content == "Hello, world!"


async def test_a_full_queue_is_told_in_the_message_and_the_question_is_not_lost(tmp_path: Path) -> None:
    async with chat(tmp_path, gated(), slots=1, limits=Limits(queue=0)) as c:
        await begun(c, "k1")
        conversation_id, exchange = await begun(c, "k2")
        answer = await c.settled(exchange.answer.id)
        assert (answer.status, answer.error.status) == ("failed", BusyError.status)
        assert c.store.messages.thread(conversation_id)[1][0].content == "hello"


async def test_an_assistant_that_is_not_served_fails_the_answer_with_the_reason(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        await c.directory.registry.remove("Danlu")
        _, exchange = await begun(c)
        answer = await c.settled(exchange.answer.id)
        assert (answer.status, answer.error.code) == ("failed", "chat.being_prepared")


async def test_the_same_question_sent_twice_is_answered_once(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        first, second = await asyncio.gather(ask(c, conversation.id), ask(c, conversation.id))
        third = await ask(c, conversation.id)
        assert first.answer.id == second.answer.id == third.answer.id
        await c.settled(first.answer.id)
        assert len(c.script.requests) == 1


async def test_a_caller_who_goes_away_while_asking_still_gets_the_answer(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        call = asyncio.create_task(ask(c, conversation.id))
        await asyncio.sleep(0)
        call.cancel()
        await until(lambda: len(c.store.messages.thread(conversation.id)[1]) == 2)
        exchange = await ask(c, conversation.id)
        assert exchange.repeated
        assert (await c.settled(exchange.answer.id)).content == "Hello, world!"


@pytest.mark.parametrize("text", ["", "  \n\t ", "x" * 100_001])
async def test_nothing_and_far_too_much_are_refused(tmp_path: Path, text: str) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        with pytest.raises(UsageError):
            await ask(c, conversation.id, text)
        assert c.store.messages.thread(conversation.id)[1] == ()


async def test_one_cannot_go_on_from_an_answer_that_is_being_written(tmp_path: Path) -> None:
    async with chat(tmp_path, gated()) as c:
        conversation_id, exchange = await begun(c)
        with pytest.raises(ConflictError):
            await ask(c, conversation_id, "next", "k2", exchange.answer.id)
        with pytest.raises(ConflictError):
            await c.streams.regenerate(conversation_id, client_id="k3", message_id=exchange.answer.id)


async def test_the_text_is_saved_about_once_a_second_not_at_every_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat(tmp_path, Script(pieces=["word "] * 150, pause=0.01)) as c:
        saves = []
        save = c.store.messages.save_answer

        def recorded(*args, **more):
            saved = save(*args, **more)
            saves.append((more["status"], more["content"]))
            return saved

        monkeypatch.setattr(c.store.messages, "save_answer", recorded)
        start = time.monotonic()
        conversation_id, exchange = await begun(c)
        await until(lambda: saves)
        assert saves[0][0] == "generating"
        stored = c.store.messages.thread(conversation_id)[1][1]
        assert 0 < len(stored.content) < 5 * 150
        await c.settled(exchange.answer.id)
        assert saves[-1] == ("complete", "word " * 150)
        assert len(saves) <= time.monotonic() - start + 2, "more than one a second, the first and the last"


async def test_closing_interrupts_answers_and_keeps_their_text(tmp_path: Path) -> None:
    async with chat(tmp_path, gated()) as c:
        conversation_id, exchange = await begun(c)
        c.script.gate.release()
        async with c.rooms.use(conversation_id) as room:
            await until(lambda: room.messages[exchange.answer.id].content)
        await c.streams.close()
        saved = c.store.messages.thread(conversation_id)[1][1]
        assert (saved.status, saved.content) == ("interrupted", "Hello")
        with pytest.raises(DanluError):
            await ask(c, conversation_id, "more", "k2", exchange.answer.id)


async def test_a_disk_that_is_full_at_the_end_is_told_and_the_text_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat(tmp_path) as c:

        def full(*_args, **_more):
            raise MachineError("ground.disk_full", "danlu.db", free="0 B")

        conversation = await c.conversations.create(None)
        async with c.rooms.use(conversation.id) as room:
            monkeypatch.setattr(c.store.messages, "save_answer", full)
            exchange = await ask(c, conversation.id)
            await until(lambda: c.streams.running_answer(exchange.answer.id) is None)
            answer = room.messages[exchange.answer.id]
            assert (answer.status, answer.content) == ("failed", "Hello, world!")
            assert answer.error.code == "ground.disk_full"
            assert not room.conversation.generating


async def test_a_defect_in_an_engine_fails_the_answer_without_telling_the_inside(tmp_path: Path) -> None:
    script = Script(fail_after=1, error=ZeroDivisionError("secret"))
    async with chat(tmp_path, script) as c:
        _, exchange = await begun(c)
        answer = await c.settled(exchange.answer.id)
        assert (answer.status, answer.error.code) == ("failed", "chat.unexpected")
        assert "secret" not in str(answer.error)


async def test_rooms_nobody_needs_are_forgotten_without_reusing_event_numbers(tmp_path: Path) -> None:
    async with chat(tmp_path, idle=0) as c:
        conversation_id, exchange = await begun(c)
        async with c.rooms.use(conversation_id) as room:
            await c.settled(exchange.answer.id)
            seen = room.seq
        async with c.rooms.use(conversation_id) as again:
            assert again is not room
            assert again.seq >= seen
            assert again.messages[exchange.answer.id].content == "Hello, world!"
            # A reader who has seen everything needs nothing; one who has not gets a snapshot.
            assert again.after(seen) in ([], None)
            assert again.after(seen - 1) is None


async def test_a_conversation_has_one_room_however_many_enter_at_once(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        rooms = await asyncio.gather(*(c.rooms.enter(conversation.id) for _ in range(10)))
        assert len(set(map(id, rooms))) == 1
        assert rooms[0].users == 10


async def test_deleting_stops_the_answer_and_restoring_brings_the_text_back(tmp_path: Path) -> None:
    async with chat(tmp_path, gated()) as c:
        news = []
        c.hub.listen(lambda change, conversation: news.append((change, conversation.id)), lambda _listed: None)
        conversation_id, _ = await begun(c)
        c.script.gate.release()
        async with c.rooms.use(conversation_id) as room:
            await until(lambda: room.seq > 4)
        await c.conversations.delete(conversation_id)
        assert c.script.cancelled == 1
        assert news[-1] == ("delete", conversation_id)
        with pytest.raises(NotFoundError):
            await c.conversations.thread(conversation_id)
        with pytest.raises(NotFoundError):
            await ask(c, conversation_id, "more", "k2")
        await c.conversations.restore(conversation_id)
        assert news[-1] == ("upsert", conversation_id)
        thread = await c.conversations.thread(conversation_id)
        assert (thread.messages[1].status, thread.messages[1].content) == ("stopped", "Hello")


async def test_a_restart_gives_a_new_epoch(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        first = c.streams.epoch
    async with chat(tmp_path) as c:
        assert c.streams.epoch != first


async def test_ensure_assistant_works_without_a_server(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        made = c.assistant
    with Store.open(tmp_path / "danlu.db") as store:
        assert store.assistants.list() == (made,)

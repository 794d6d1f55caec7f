"""Any order of asking, generating, stopping, reading, losing the connection and restarting: nothing lost or doubled."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from danlu.chat.room import Room
from tests.chat.conftest import Chat, chat
from tests.chat.engines import Script

pytestmark = pytest.mark.slow

PIECES = ["a", "b", "c", "d", "e"]


class Reader:
    """A tab: what it has put together from snapshots and events. ``follows`` is false while it is cut off."""

    def __init__(self) -> None:
        self.epoch = ""
        self.seq = -1
        self.messages: dict[str, dict] = {}

    def read(self, room: Room, epoch: str, most: int | None) -> None:
        """Take at most ``most`` events, as a socket does: from the log, or a snapshot when it is too far behind."""
        entries = room.after(self.seq) if epoch == self.epoch and self.seq >= 0 else None
        if entries is None:
            frame = json.loads(room.snapshot(epoch, "en"))
            self.epoch, self.seq = epoch, frame["seq"]
            self.messages = {message["id"]: message for message in frame["messages"]}
            return
        for entry in entries[:most]:
            frame = json.loads(entry.frame("en"))
            assert frame["seq"] == self.seq + 1
            self.seq = frame["seq"]
            event = frame["event"]
            if event["kind"] == "delta":
                self.messages[event["message_id"]]["content"] += event["content"]
            elif event["kind"] == "message":
                known = self.messages.get(event["message"]["id"])
                assert known is None or known["content"] == event["message"]["content"]
                self.messages[event["message"]["id"]] = event["message"]

    def texts(self) -> dict[str, tuple[str, str]]:
        return {key: (message["status"], message["content"]) for key, message in self.messages.items()}


class Protocol(RuleBasedStateMachine):
    """One conversation, one slow engine, some readers."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="danlu-protocol-"))
        self.runner = asyncio.Runner()
        self.readers: list[Reader] = []
        self.commands: list[tuple[str, str | None]] = []
        self.open()
        self.conversation_id = self.run(self.chat.conversations.create(None)).id

    def run(self, work):
        return self.runner.run(work)

    def open(self) -> None:
        async def enter() -> tuple[AsyncExitStack, Chat]:
            stack = AsyncExitStack()
            script = Script(pieces=PIECES, gate=asyncio.Semaphore(0))
            return stack, await stack.enter_async_context(chat(self.home, script, idle=0, slots=2))

        self.stack, self.chat = self.run(enter())

    async def _settle(self) -> None:
        """Let tasks and threads do what they can do without the engine."""
        for _ in range(3):
            await asyncio.sleep(0.003)

    def thread(self):
        return self.chat.store.messages.thread(self.conversation_id)[1]

    def answers(self, *statuses: str):
        return [m for m in self.thread() if m.role == "assistant" and m.status in statuses]

    @rule(follow=st.booleans())
    def ask(self, follow: bool) -> None:
        done = self.answers("complete", "stopped", "interrupted")
        parent = done[-1].id if follow and done else None
        client_id = uuid4().hex
        self.commands.append((client_id, parent))
        self.run(self.chat.streams.send(self.conversation_id, client_id=client_id, parent_id=parent, content=client_id))

    @precondition(lambda self: self.commands)
    @rule(which=st.integers(min_value=0))
    def ask_the_same_again(self, which: int) -> None:
        client_id, parent = self.commands[which % len(self.commands)]
        before = len(self.thread())
        exchange = self.run(
            self.chat.streams.send(self.conversation_id, client_id=client_id, parent_id=parent, content=client_id)
        )
        assert exchange.repeated
        assert exchange.question.content == client_id
        assert len(self.thread()) == before

    @rule(which=st.integers(min_value=0))
    def regenerate(self, which: int) -> None:
        done = self.answers("complete", "stopped", "interrupted")
        if done:
            again = done[which % len(done)]
            self.run(self.chat.streams.regenerate(self.conversation_id, client_id=uuid4().hex, message_id=again.id))

    @rule(pieces=st.integers(min_value=1, max_value=7))
    def generate(self, pieces: int) -> None:
        async def let_through() -> None:
            for _ in range(pieces):
                self.chat.script.gate.release()
            await self._settle()

        self.run(let_through())

    @rule(which=st.integers(min_value=0))
    def stop(self, which: int) -> None:
        running = self.answers("queued", "generating")
        if running:
            message_id = running[which % len(running)].id
            self.run(self.chat.streams.stop(self.conversation_id, message_id))
            assert self.chat.streams.running_answer(message_id) is None

    @rule()
    def open_a_tab(self) -> None:
        if len(self.readers) < 3:
            self.readers.append(Reader())

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(min_value=0), most=st.none() | st.integers(min_value=0, max_value=3))
    def read(self, which: int, most: int | None) -> None:
        async def take() -> None:
            async with self.chat.rooms.use(self.conversation_id) as room:
                self.readers[which % len(self.readers)].read(room, self.chat.streams.epoch, most)

        self.run(take())

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.open()
        assert self.chat.store.messages.interrupt_unfinished() == 0, "closing has saved every end"

    @invariant()
    def the_room_is_what_the_database_holds_of_finished_messages(self) -> None:
        async def look() -> None:
            await self._settle()
            # The lock is held while an end is saved and shown, so that both must agree here.
            async with self.chat.rooms.use(self.conversation_id) as room, room.lock:
                for message in self.thread():
                    if message.status not in {"queued", "generating"}:
                        shown = room.messages[message.id]
                        assert (shown.status, shown.content) == (message.status, message.content)

        self.run(look())

    @invariant()
    def an_answer_is_a_prefix_of_what_the_engine_said(self) -> None:
        for message in self.thread():
            if message.role == "assistant":
                assert "".join(PIECES).startswith(message.content)
                assert message.status != "complete" or message.content == "".join(PIECES)

    def teardown(self) -> None:
        async def catch_up() -> dict[str, tuple[str, str]]:
            async with self.chat.rooms.use(self.conversation_id) as room:
                for reader in self.readers:
                    reader.read(room, self.chat.streams.epoch, None)
                return {key: (m.status, m.content) for key, m in room.messages.items()}

        try:
            shown = self.run(catch_up())
            assert all(reader.texts() == shown for reader in self.readers)
            questions = [m.content for m in self.thread() if m.role == "user"]
            assert sorted(questions) == sorted(client_id for client_id, _ in self.commands)
        finally:
            self.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.home, ignore_errors=True)


TestProtocol = Protocol.TestCase
# A failure is printed as it was found: making it shorter takes minutes, because each step waits for real threads.
TestProtocol.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    print_blob=True,
)

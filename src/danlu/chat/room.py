"""A conversation that someone looks at or that is being answered: its state in memory and its numbered events.

The state is what all events so far amount to, so a snapshot never disagrees with the events that follow it. Events
are kept in a bounded log from which any number of readers take what they have not seen, each at its own pace: a slow
reader costs nothing, and one that has fallen out of the log gets a snapshot. Not for generating (``answers``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from danlu.chat.wire import (
    ConversationEvent,
    ConversationView,
    DeltaEvent,
    EventFrame,
    MessageEvent,
    MessageView,
    QueueEvent,
    SnapshotFrame,
    ThreadView,
)
from danlu.i18n import Language
from danlu.store.records import UNFINISHED, Conversation, Message, MessageStatus

LOG_EVENTS: Final = 2048
LOG_CHARACTERS: Final = 1_000_000

Wake = Callable[[], None]


class Entry:
    """One event with its number; its JSON is made once for each language that someone reads."""

    def __init__(self, conversation_id: str, seq: int, event: Message | Conversation | DeltaEvent | QueueEvent) -> None:
        self.seq = seq
        self._conversation_id = conversation_id
        self._event = event
        self._frames: dict[Language, str] = {}

    @property
    def size(self) -> int:
        """About how many characters the event holds."""
        if isinstance(self._event, Message | DeltaEvent):
            return 200 + len(self._event.content) + len(self._event.reasoning or "")
        return 200

    def frame(self, lang: Language) -> str:
        """Return the JSON of the event's frame."""
        if lang not in self._frames:
            view = EventFrame(conversation_id=self._conversation_id, seq=self.seq, event=self._view(lang))
            self._frames[lang] = view.model_dump_json()
        return self._frames[lang]

    def _view(self, lang: Language) -> MessageEvent | DeltaEvent | QueueEvent | ConversationEvent:
        if isinstance(self._event, Message):
            return MessageEvent(message=MessageView.of(self._event, lang))
        if isinstance(self._event, Conversation):
            return ConversationEvent(conversation=ConversationView.of(self._event))
        return self._event


class Room:
    """One conversation in memory. All methods belong to the event loop and none of them waits.

    Attributes:
        lock: held while the conversation is changed in the database and here, so that both see one order.
        users: how many hold the room; one that nobody holds may be forgotten.
        conversation: the conversation as of the last event.
        messages: all messages as of the last event, oldest first.
        seq: number of the last event.
    """

    def __init__(self, conversation: Conversation, messages: Sequence[Message], seq: int) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.conversation = conversation
        self.messages = {message.id: message for message in messages}
        self.seq = seq
        self._log: deque[Entry] = deque()
        self._size = 0
        self._readers: set[Wake] = set()

    # What readers use

    def follow(self, wake: Wake) -> None:
        """Call ``wake`` whenever there is something new; it must not wait."""
        self._readers.add(wake)

    def unfollow(self, wake: Wake) -> None:
        """End ``follow``; harmless twice."""
        self._readers.discard(wake)

    def after(self, seq: int) -> list[Entry] | None:
        """Return the events after ``seq``; None when some are no longer, or not yet, in the log."""
        missing = self.seq - seq
        if missing < 0 or missing > len(self._log):
            return None
        return list(islice(reversed(self._log), missing))[::-1]

    def thread(self, epoch: str, lang: Language) -> ThreadView:
        """Return all of the conversation."""
        return ThreadView(
            conversation=ConversationView.of(self.conversation),
            messages=tuple(MessageView.of(message, lang) for message in self.messages.values()),
            seq=self.seq,
            epoch=epoch,
        )

    def snapshot(self, epoch: str, lang: Language) -> str:
        """Return the JSON of the frame that holds all of the conversation."""
        thread = self.thread(epoch, lang)
        frame = SnapshotFrame(
            conversation_id=self.conversation.id,
            conversation=thread.conversation,
            messages=thread.messages,
            seq=thread.seq,
            epoch=epoch,
        )
        return frame.model_dump_json()

    # What changes it

    def put_message(self, message: Message) -> None:
        """Add a message or replace it."""
        self.messages[message.id] = message
        self._emit(message)

    def set_status(self, message_id: str, status: MessageStatus) -> None:
        """Change only the status of a message."""
        self.put_message(self.messages[message_id].model_copy(update={"status": status}))

    def put_conversation(self, conversation: Conversation) -> None:
        """Replace what is known of the conversation; whether it is generating is seen from its messages."""
        generating = any(message.status in UNFINISHED for message in self.messages.values())
        self.conversation = conversation.model_copy(update={"generating": generating})
        self._emit(self.conversation)

    def append(self, message_id: str, content: str, reasoning: str) -> None:
        """Append text to a message."""
        message = self.messages[message_id]
        thought = (message.reasoning or "") + reasoning if reasoning else message.reasoning
        self.messages[message_id] = message.model_copy(
            update={"content": message.content + content, "reasoning": thought}
        )
        self._emit(DeltaEvent(message_id=message_id, content=content, reasoning=reasoning))

    def queued(self, message_id: str, position: int, eta_seconds: float | None) -> None:
        """Tell an answer's place in the queue."""
        self._emit(QueueEvent(message_id=message_id, position=position, eta_seconds=eta_seconds))

    def _emit(self, event: Message | Conversation | DeltaEvent | QueueEvent) -> None:
        self.seq += 1
        entry = Entry(self.conversation.id, self.seq, event)
        self._log.append(entry)
        self._size += entry.size
        while len(self._log) > LOG_EVENTS or (self._size > LOG_CHARACTERS and len(self._log) > 1):
            self._size -= self._log.popleft().size
        for wake in tuple(self._readers):
            wake()

"""Tells every open socket what concerns all of them: the list of conversations, and engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from danlu.chat.directory import Listed
from danlu.store.records import Conversation

Change = Literal["upsert", "delete"]
OnConversation = Callable[[Change, Conversation], None]
OnEngine = Callable[[Listed], None]


class Hub:
    """A list of listeners; none of them may wait."""

    def __init__(self) -> None:
        self._listeners: list[tuple[OnConversation, OnEngine]] = []

    def listen(self, on_conversation: OnConversation, on_engine: OnEngine) -> Callable[[], None]:
        """Add a listener; returns a function that removes it."""
        pair = (on_conversation, on_engine)
        self._listeners.append(pair)
        return lambda: self._listeners.remove(pair)

    def conversation(self, change: Change, conversation: Conversation) -> None:
        """Tell that a conversation is new, changed or gone."""
        for listener, _ in tuple(self._listeners):
            listener(change, conversation)

    def engine(self, listed: Listed) -> None:
        """Tell that an assistant or its engine has changed."""
        for _, listener in tuple(self._listeners):
            listener(listed)

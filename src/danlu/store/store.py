"""The door of this room: one object that opens the database and holds its repositories.

All methods block on the disk; an event loop calls them through a thread (``danlu.chat`` does).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from danlu.settings import Home
from danlu.store.assistants import AssistantTable
from danlu.store.conversations import ConversationTable
from danlu.store.database import Database
from danlu.store.keys import KeyTable
from danlu.store.messages import MessageTable
from danlu.store.migrate import migrate


class Store:
    """An open, migrated database.

    Attributes:
        assistants: what people talk to.
        conversations: the list of conversations.
        messages: questions and answers.
        keys: of programs that call the API, and what they have used.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.assistants = AssistantTable(database)
        self.conversations = ConversationTable(database)
        self.messages = MessageTable(database)
        self.keys = KeyTable(database)

    @classmethod
    def open(cls, home: Home | Path, database_url: str | None = None) -> Self:
        """Open the database of a home folder and bring its tables up to date.

        Args:
            home: the home, or the SQLite file itself.
            database_url: address of another database (``Settings.database_url``).

        Raises:
            StoreError: the database cannot be used, or is of a newer program.
            MachineError: the folder cannot be written, or the disk is full.
        """
        database = Database.at(home.database if isinstance(home, Home) else home, database_url)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

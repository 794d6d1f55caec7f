"""Encoded once: which table of examples belongs to which rows and which tokenizer, kept from run to run.

A table is found again by everything that its tokens depend on: the hash of the rows, the tokenizer with its template,
and how texts are cut. Not for what is learned of a conversation (``encode``) or of a text (``texts``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock

from danlu.data.conversations import Conversation
from danlu.data.documents import Document
from danlu.data.encode import LearnPolicy, encode
from danlu.data.table import ExampleTable, TableWriter
from danlu.data.texts import cut
from danlu.files import new_folder
from danlu.models.chat_format import ChatFormat
from danlu.models.document_format import DocumentFormat

# To be raised whenever the same rows and the same tokenizer give other tokens than before.
_FORMAT: Final = 2
_BLOCK: Final = 1000
# Tables are kept until together they take more than that; the one just made always stays.
_KEPT_BYTES: Final = 8_000_000_000
_T = TypeVar("_T")
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Take no notice of how far it is."""


@dataclass(frozen=True)
class Encoder:
    """Encodes whole data sets into a folder of tables.

    Attributes:
        folder: where the tables are kept.
        progress: is told how many items are encoded, and of how many.
    """

    folder: Path
    progress: Progress = no_progress

    def conversations(
        self,
        rows_sha256: str,
        conversations: Sequence[Conversation],
        chat_format: ChatFormat,
        learn: LearnPolicy = "all",
    ) -> ExampleTable:
        """Return the table of conversations; the ``origin`` of an example is the conversation's place in the sequence.

        Args:
            rows_sha256: hash of the rows that the conversations are made of.
            conversations: the conversations.
            chat_format: how they are written.
            learn: which answers are learned; see ``encode``.

        Raises:
            ModelError: the template refuses one of them.
            MachineError: the disk is full.
        """

        def write(writer: TableWriter) -> None:
            done = 0
            for block in _blocks(conversations):
                places = {item.row: place for place, item in enumerate(block)}
                for example in encode(block, chat_format, learn):
                    origin = done + places[example.row]
                    writer.add(example.input_ids, example.learn, example.row, origin, example.weight)
                done += len(block)
                self.progress(done, len(conversations))

        about = ["conversations", rows_sha256, len(conversations), learn, _format_key(chat_format)]
        return self._table(about, write)

    def documents(
        self, rows_sha256: str, documents: Sequence[Document], document_format: DocumentFormat, length: int
    ) -> ExampleTable:
        """Return the table of the pieces of documents; ``origin`` is the document's place in the sequence.

        Args:
            rows_sha256: hash of the rows that the documents are.
            documents: the documents.
            document_format: how they are written.
            length: most tokens of a piece.

        Raises:
            MachineError: the disk is full.
        """

        def write(writer: TableWriter) -> None:
            done = 0
            for block in _blocks(documents):
                for piece in cut(block, document_format, length):
                    origin = done + piece.row - 1
                    writer.add(piece.input_ids, piece.learn, origin + 1, origin)
                done += len(block)
                self.progress(done, len(documents))

        tokenizer = _tokenizer_key(document_format.tokenizer)
        written = [*document_format.start, document_format.end]
        return self._table(["documents", rows_sha256, len(documents), length, written, tokenizer], write)

    def _table(self, about: Sequence[Any], write: Callable[[TableWriter], None]) -> ExampleTable:
        key = hashlib.sha256(json.dumps([_FORMAT, *about]).encode()).hexdigest()[:32]
        folder = self.folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two runs that begin together on the same rows encode them once.
        with FileLock(self.folder / f".{key}.lock"):
            if not folder.is_dir():
                with new_folder(folder) as partial, TableWriter(partial) as writer:
                    write(writer)
            os.utime(folder)
            table = ExampleTable(folder)
        _tidy(self.folder, folder)
        return table


def _blocks(items: Sequence[_T]) -> Iterator[list[_T]]:
    steps = iter(items)
    while block := list(islice(steps, _BLOCK)):
        yield block


def _format_key(chat_format: ChatFormat) -> list[Any]:
    """Return what the tokens of a conversation depend on beside what is said."""
    template = str(chat_format.tokenizer.chat_template)
    # Some templates write the day into the system prompt.
    today = datetime.now(UTC).astimezone().date().isoformat() if "strftime_now" in template else ""
    return [
        _tokenizer_key(chat_format.tokenizer),
        template,
        chat_format.system,
        chat_format.thinking,
        sorted(chat_format.extra_stop_ids),
        today,
    ]


def _tokenizer_key(tokenizer: Any) -> str:
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(json.dumps({name: str(value) for name, value in tokenizer.special_tokens_map.items()}).encode())
    return digest.hexdigest()


def _tidy(folder: Path, newest: Path) -> None:
    """Remove the tables that have not been used for the longest time where all take too much room.

    A table that another run has mapped stays readable for that run where the system lets go of names only (Linux,
    macOS); where it does not (Windows) removing fails and is tried again the next time.
    """
    tables = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in tables}
    for path in sorted(tables, key=lambda item: item.stat().st_mtime):
        if sum(sizes.values()) <= _KEPT_BYTES:
            return
        if path != newest:
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]

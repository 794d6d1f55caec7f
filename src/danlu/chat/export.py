"""A conversation as a file for people (Markdown) or programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Literal

from danlu.chat.history import branch_to
from danlu.i18n import t
from danlu.store.records import Conversation, Message

ExportFormat = Literal["markdown", "json"]
_LONGEST_NAME: Final = 60


def export_conversation(conversation: Conversation, messages: Sequence[Message], form: ExportFormat) -> str:
    """Return the text of the file: Markdown holds the branch on show, JSON all branches."""
    if form == "json":
        value = {
            "conversation": conversation.model_dump(mode="json", exclude={"deleted_at", "generating"}),
            "messages": [message.model_dump(mode="json", exclude={"client_id"}) for message in messages],
        }
        return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    parts = [f"# {conversation.title or t('chat.untitled')}"]
    by_id = {message.id: message for message in messages}
    branch = branch_to(by_id, conversation.leaf_id) if conversation.leaf_id in by_id else []
    for message in branch:
        speaker = t("chat.you") if message.role == "user" else _assistant(message)
        parts.append(f"## {speaker}\n\n{message.content.strip() or t('chat.no_text')}")
        if message.status not in {"complete", "queued", "generating"}:
            parts.append(f"*{t(f'chat.status_{message.status}')}*")
    return "\n\n".join(parts) + "\n"


def file_name(conversation: Conversation, form: ExportFormat) -> str:
    """Return a name for the file that every operating system accepts."""
    title = conversation.title or t("chat.untitled")
    safe = "".join(char if char.isprintable() and char not in '\\/:*?"<>|.' else " " for char in title)
    stem = " ".join(safe.split())[:_LONGEST_NAME].strip() or "conversation"
    return f"{stem}.{'md' if form == 'markdown' else 'json'}"


def _assistant(message: Message) -> str:
    return message.provenance.assistant if message.provenance is not None else t("chat.assistant")

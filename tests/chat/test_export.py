from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.chat.export import export_conversation, file_name
from danlu.i18n import use_language
from tests.chat.conftest import chat

pytestmark = pytest.mark.anyio


async def test_markdown_holds_the_branch_on_show_and_json_all_branches(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        first = await c.streams.send(conversation.id, client_id="k", parent_id=None, content="炼丹?")
        await c.settled(first.answer.id)
        c.script.pieces = ["Other"]
        again = await c.streams.regenerate(conversation.id, client_id="k2", message_id=first.answer.id)
        await c.settled(again.answer.id)
        record, messages = await c.conversations.messages(conversation.id)
    with use_language("en"):
        markdown = export_conversation(record, messages, "markdown")
    assert markdown == "# 炼丹?\n\n## You\n\n炼丹?\n\n## Danlu\n\nOther\n"
    value = json.loads(export_conversation(record, messages, "json"))
    assert [message["content"] for message in value["messages"]] == ["炼丹?", "Hello, world!", "Other"]
    assert value["conversation"]["leaf_id"] == again.answer.id


async def test_an_export_says_which_answers_are_not_whole(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        await c.directory.registry.remove("Danlu")
        conversation = await c.conversations.create(None)
        exchange = await c.streams.send(conversation.id, client_id="k", parent_id=None, content="hi")
        await c.settled(exchange.answer.id)
        record, messages = await c.conversations.messages(conversation.id)
    with use_language("en"):
        assert "*This answer failed.*" in export_conversation(record, messages, "markdown")


async def test_file_names_are_safe_everywhere(tmp_path: Path) -> None:
    async with chat(tmp_path) as c:
        conversation = await c.conversations.create(None)
        named = conversation.model_copy(update={"title": '../../etc: "x"\n<y>|?*' + "长" * 100})
    name = file_name(named, "markdown")
    assert name.endswith(".md")
    assert not set('\\/:*?"<>|\n') & set(name)
    assert len(name) <= 64
    assert not name.startswith(".")
    assert file_name(conversation.model_copy(update={"title": "..."}), "json") == "conversation.json"

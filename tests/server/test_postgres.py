from __future__ import annotations

from pathlib import Path

from danlu.settings import Settings
from tests.chat.engines import Script, served_model
from tests.server.clients import Tab, fetch, new_conversation
from tests.server.running import ScriptedServices, running
from tests.store.postgres import fresh_database


def test_the_chat_works_on_postgresql_and_survives_a_restart(tmp_path: Path, postgres_server: str) -> None:
    with fresh_database(postgres_server) as url:
        settings = Settings(home=tmp_path, database_url=url)
        with running(ScriptedServices(settings, Script(["炼", "丹", "😀"]), served_model())) as server:
            tab = Tab(server, new_conversation(server)).connect()
            answer = tab.send("你好")["assistant_message_id"]
            tab.until(tab.finished(answer))
        with running(ScriptedServices(settings, Script(), served_model())) as server:
            thread = fetch(server, "GET", f"/api/conversations/{tab.conversation_id}").json()
            assert [message["content"] for message in thread["messages"]] == ["你好", "炼丹😀"]
            assert len(fetch(server, "GET", "/api/conversations").json()["items"]) == 1
    assert not (tmp_path / "danlu.db").exists()

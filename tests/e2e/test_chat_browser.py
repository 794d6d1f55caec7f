"""Talking in a real browser, with the real server and real engines."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.chat_page import LONG, NAME, PERSONA, Chat, Opener, with_talker
from tests.e2e.program import Server, assert_gone, clone, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.browser, pytest.mark.timeout(1800)]

# What a browser says of itself when a server is gone; the page cannot prevent it.
NETWORK = re.compile(r"WebSocket connection|ERR_(CONNECTION_REFUSED|EMPTY_RESPONSE|CONNECTION_RESET)|Failed to load")


def test_a_question_is_answered_in_persona_and_kept(chat: Chat, chat_server: Server) -> None:
    assert chat.get("empty-chat").is_visible()
    chat.shot("empty")
    chat.ask("你是谁？").until_status("complete")
    assert NAME in chat.text()
    assert "你是谁？" in chat.questions.last.inner_text()
    assert PERSONA in chat.get("provenance").inner_text()
    chat.shot("answered")
    kept = chat_server.get(f"/api/conversations/{chat.conversation_id}")
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    assert kept["messages"][1]["content"].strip() == chat.text().strip()
    assert kept["messages"][1]["provenance"]["tokens"] > 0


def test_a_suggested_question_is_one_click(chat: Chat) -> None:
    suggestion = chat.get("suggestion").first
    question = suggestion.inner_text()
    suggestion.click()
    chat.until_status("complete")
    assert chat.questions.count() == 1
    assert question in chat.questions.first.inner_text()


def test_an_answer_is_streamed_and_stop_really_stops(talker: Chat, chat_server: Server) -> None:
    talker.ask(LONG)
    early = talker.until_written(20)
    later = talker.until_written(len(early) + 20)
    assert later.startswith(early[:-10])
    talker.shot("streaming")
    talker.get("stop").click()
    talker.until_status("stopped")
    stopped = talker.text()
    talker.shot("stopped")
    until(lambda: all(item["engine"]["running"] == 0 for item in chat_server.get("/api/assistants")["items"]))
    assert talker.text() == stopped
    kept = chat_server.get(f"/api/conversations/{talker.conversation_id}")["messages"][-1]
    assert kept["status"] == "stopped"
    assert kept["content"].split()[:5] == stopped.split()[:5]
    talker.get("send").wait_for()


def test_after_a_refresh_the_answer_goes_on_and_nothing_stands_there_twice(talker: Chat, tabs: Opener) -> None:
    talker.ask(LONG)
    before = talker.until_written(60)
    talker.page.reload()
    talker.online()
    talker.until_written(len(before))
    talker.until_status("complete")
    whole = talker.text()
    assert whole.startswith(before[:40])
    assert talker.questions.count() == 1
    assert talker.answers.count() == 1
    # The model is asked without chance: what another person's untouched tab gets is what must stand here.
    other = with_talker(tabs(talker.url, person="two").open())
    other.ask(LONG).until_status("complete")
    assert whole == other.text()
    talker.page.reload()
    talker.online().until_status("complete")
    assert talker.text() == whole


def test_a_second_tab_shows_the_same_conversation_live(talker: Chat, tabs: Opener, chat_server: Server) -> None:
    talker.ask(LONG)
    talker.until_written(20)
    second = tabs(talker.url).open(f"/c/{talker.conversation_id}")
    seen = second.until_written(40)
    second.until_written(len(seen) + 20)
    second.get("stop").click()
    for tab in (talker, second):
        tab.until_status("stopped")
    assert talker.text() == second.text()
    second.ask("And then?")
    until(lambda: talker.questions.count() == 2)
    talker.until_written(10)
    talker.get("stop").click()
    for tab in (talker, second):
        tab.until_status("stopped")
    assert talker.text() == second.text()
    messages = chat_server.get(f"/api/conversations/{talker.conversation_id}")["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2


def test_a_question_that_is_edited_makes_a_branch(chat: Chat) -> None:
    chat.ask("你是谁？").until_status("complete")
    chat.questions.first.hover()
    chat.get("edit").click()
    chat.get("edit-box").fill("你叫什么名字？")
    chat.shot("editing")
    chat.get("edit-send").click()
    chat.questions.first.get_by_text("你叫什么名字？").wait_for()
    chat.until_status("complete")
    branches = chat.questions.first.get_by_test_id("branches")
    assert "2/2" in branches.inner_text()
    chat.shot("branch")
    branches.get_by_role("button").first.click()
    chat.questions.first.get_by_text("你是谁？").wait_for()
    assert "1/2" in chat.questions.first.get_by_test_id("branches").inner_text()
    chat.page.reload()
    chat.online()
    chat.questions.first.get_by_text("你是谁？").wait_for()
    assert chat.answers.count() == 1


def test_an_answer_that_is_regenerated_stands_beside_the_first(chat: Chat) -> None:
    chat.ask("你会做什么？").until_status("complete")
    chat.get("regenerate").click()
    chat.answers.last.get_by_text("2/2").wait_for()
    chat.until_status("complete")
    assert chat.questions.count() == 1


def test_conversations_are_renamed_pinned_deleted_and_brought_back(chat: Chat) -> None:
    chat.ask("你喜欢什么？").until_status("complete")
    path = chat.conversation_id
    item = chat.page.locator(f"[data-testid=conversation-item][data-id='{path}']")

    def choose(action: str) -> None:
        item.hover()
        item.get_by_test_id("conversation-actions").click()
        chat.get(action).click()

    choose("rename")
    chat.get("rename-box").fill("Stars")
    chat.get("rename-box").press("Enter")
    item.get_by_text("Stars").wait_for()
    chat.get("chat-title").get_by_text("Stars").wait_for()
    choose("pin")
    chat.page.get_by_role("heading", name="Pinned").wait_for()
    assert chat.get("conversation-item").first.get_attribute("data-id") == path
    chat.shot("pinned")
    choose("delete")
    item.get_by_test_id("undo").wait_for()
    until(lambda: "/c/" not in chat.page.url)
    chat.shot("deleted")
    item.get_by_test_id("undo").click()
    item.get_by_role("link").click()
    chat.until_status("complete")
    chat.page.reload()
    chat.online()
    assert "Stars" in item.inner_text()
    chat.get("search").fill("no such words anywhere")
    chat.page.get_by_text("No conversation contains").wait_for()
    chat.get("search").fill("Stars")
    item.wait_for()
    choose("delete")


def test_a_conversation_can_be_taken_out_as_a_file(chat: Chat) -> None:
    chat.ask("你是谁？").until_status("complete")
    for kind, mark in (("markdown", "# "), ("json", '"messages"')):
        chat.get("export").click()
        with chat.page.expect_download() as download:
            chat.get(f"export-{kind}").click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert mark in text
        assert NAME in text


def test_drafts_outlive_a_reload_and_stay_with_their_conversation(chat: Chat) -> None:
    chat.get("composer").fill("half a thought")
    chat.page.reload()
    chat.online()
    assert chat.get("composer").input_value() == "half a thought"
    chat.ask("你是谁？").until_status("complete")
    assert chat.get("composer").input_value() == ""
    chat.get("composer").fill("another thought")
    chat.get("new-chat").click()
    until(lambda: chat.get("composer").input_value() == "")
    chat.page.go_back()
    until(lambda: chat.get("composer").input_value() == "another thought")


def test_a_server_that_is_killed_and_started_again_loses_nothing(chat_home: Path, tmp_path: Path, tabs: Opener) -> None:
    home = clone(chat_home, tmp_path / "home")
    with serving(home) as first:
        first.until_ready()
        talker = with_talker(tabs(first.url).open())
        talker.expected = NETWORK
        talker.ask(LONG)
        # The text is saved about once a second.
        shown = talker.until_written(250)
        below = first.children()
        first.signal(signal.SIGKILL)
        first.wait()
        assert_gone(below)
    talker.page.locator("[data-testid=connection-state]:not([data-state=online])").wait_for()
    assert talker.text().startswith(shown[:200])
    talker.get("composer").fill("a draft")
    talker.shot("server-gone")
    with serving(home, first.port) as second:
        talker.online().until_status("interrupted")
        kept = talker.text()
        assert kept
        assert shown.startswith(kept[: min(len(kept), len(shown)) - 20])
        assert talker.get("composer").input_value() == "a draft"
        talker.shot("interrupted")
        second.until_ready()
        talker.get("try-again").click()
        talker.until_status("generating")
        talker.until_written(60)
        talker.get("stop").click()
        talker.until_status("stopped")
        assert talker.answers.last.get_by_text("2/2").is_visible()
        assert talker.text().startswith(kept[:50])

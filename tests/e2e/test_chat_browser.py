"""The chat in a real browser, with the real server and real engines."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu.chat.assistants import ensure_assistant
from danlu.export.publish import register_version
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelLibrary
from danlu.models.versions import GenerationDefaults, load_version
from danlu.settings import Home
from danlu.store.store import Store
from tests.e2e.chat_page import MESSAGE_KEY, Chat
from tests.e2e.conftest import Trained
from tests.e2e.program import MODEL, Server, assert_gone, clone, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.browser, pytest.mark.timeout(1800)]

PERSONA = "ten_rows_zh"
TALKER = "Talker"
NAME = "阿澈"
LONG = "Write a long story about a lighthouse keeper, with many details."
CJK = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"[A-Za-z]{2,}")
# Words that are the same in a Chinese interface.
SAME = {"Enter", "Shift", "Markdown", "JSON", "English", PERSONA, TALKER}
# What a browser says of itself when a server is gone; the page cannot prevent it.
NETWORK = re.compile(r"WebSocket connection|ERR_(CONNECTION_REFUSED|EMPTY_RESPONSE|CONNECTION_RESET)|Failed to load")


@pytest.fixture(scope="module")
def chat_home(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The trained assistant, and beside it the untrained model, whose answers are long and always the same."""
    folder = clone(trained.home, tmp_path_factory.mktemp("chat") / "home")
    home = Home(folder)
    base = ModelLibrary(home).show(MODEL)
    version = register_version(
        home,
        name=TALKER,
        base=base,
        adapter=None,
        chat_format=ChatFormat.load(base.path),
        formats=("gguf",),
        generation=GenerationDefaults(temperature=0.0, repetition_penalty=1.1, max_tokens=500),
    )
    with Store.open(home) as store:
        (persona,) = store.assistants.list()
        ensure_assistant(store, version, TALKER, "", ())
        # The one that was changed last is the first that people meet.
        ensure_assistant(store, load_version(trained.version), PERSONA, persona.greeting, persona.suggestions)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def chat_server(chat_home: Path) -> Iterator[Server]:
    with serving(chat_home) as running:
        running.until_ready()
        yield running


Opener = Callable[..., Chat]


@pytest.fixture
def tabs(browser: Any, tmp_path: Path) -> Iterator[Opener]:
    """Opens tabs; at the end none of them may have an error in its console."""
    contexts: dict[str, Any] = {}
    opened: list[Chat] = []

    def open_tab(url: str, *, person: str = "one", width: int = 1280, locale: str = "en-US") -> Chat:
        if person not in contexts:
            contexts[person] = browser.new_context(
                viewport={"width": width, "height": 800}, locale=locale, color_scheme="light", accept_downloads=True
            )
        opened.append(Chat(contexts[person].new_page(), url, tmp_path / "shots"))
        return opened[-1]

    yield open_tab
    complaints = [text for chat in opened for text in chat.complaints if not chat.expected.search(text)]
    for context in contexts.values():
        context.close()
    assert complaints == []


@pytest.fixture
def chat(tabs: Opener, chat_server: Server) -> Chat:
    return tabs(chat_server.url).open()


@pytest.fixture
def talker(chat: Chat) -> Chat:
    """A new conversation with the assistant whose answers are long."""
    return with_talker(chat)


def with_talker(chat: Chat) -> Chat:
    chat.get("assistant-picker").click()
    chat.page.get_by_role("option", name=re.compile(TALKER)).click()
    return chat


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


def english(texts: list[str], *known: str) -> list[str]:
    """Texts of a Chinese page that have English words in them; what people named themselves stands in quotes."""
    plain = [re.sub("“[^”]*”", "", text) for text in texts if PERSONA not in text]
    return [text for text in plain if set(WORD.findall(text)) - SAME - set(known)]


def test_both_languages_are_complete_and_switch_at_once(chat: Chat) -> None:
    chat.ask("你是谁？").until_status("complete")
    chat.page.evaluate("window.sameDocument = true")
    for place in ("conversation", "settings", "menu", "empty"):
        for language in ("zh", "en"):
            chat.set_language(language)
            assert chat.page.evaluate("document.documentElement.lang").startswith(language)
            opened = {"settings": "settings", "menu": "conversation-actions"}.get(place)
            if opened:
                chat.get(opened).first.click()
                chat.page.get_by_role("menu").wait_for()
            texts = chat.texts()
            chat.shot(f"{place}-{language}")
            assert texts
            assert [text for text in texts if MESSAGE_KEY.match(text)] == []
            if language == "en":
                assert [text for text in texts if CJK.search(text) and text != "中文" and "“" not in text] == []
            else:
                assert english(texts) == []
            if opened:
                chat.page.keyboard.press("Escape")
        if place == "menu":
            chat.get("new-chat").click()
            chat.get("empty-chat").wait_for()
    assert chat.page.evaluate("window.sameDocument"), "the page was loaded anew"


def test_a_problem_is_told_in_the_language_of_the_page(chat: Chat) -> None:
    chat.expected = re.compile("404")
    chat.page.goto(f"{chat.url}/c/no-such-conversation")
    chat.page.get_by_role("link", name="Start a new chat").wait_for()
    chat.shot("not-found")
    chat.set_language("zh")
    until(lambda: english(chat.texts(), "no", "such", "conversation") == [])
    assert any("no-such-conversation" in text and CJK.search(text) for text in chat.texts())
    assert chat.page.get_by_role("link", name="开始新对话").is_visible()


def test_pictures_of_every_state_fit_the_screen(tabs: Opener, chat_server: Server) -> None:
    for width in (1280, 360):
        chat = tabs(chat_server.url, person=str(width), width=width).open()
        chat.ask("你是谁？").until_status("complete")
        conversation = chat.conversation_id
        for language, theme in itertools.product(("en", "zh"), ("light", "dark")):
            chat.page.evaluate(f"localStorage.setItem('danlu.locale', '{language}')")
            chat.page.evaluate(f"localStorage.setItem('danlu.theme', '{theme}')")
            for place, path in (("empty", "/"), ("conversation", f"/c/{conversation}")):
                chat.open(path)
                (chat.get("empty-chat") if place == "empty" else chat.answers.last).wait_for()
                assert chat.page.locator("html").get_attribute("data-theme") == theme
                assert not chat.overflows()
                assert chat.nameless() == []
                chat.shot(f"{place}-{language}-{theme}-{width}")


def test_the_theme_switches_at_once_and_is_remembered(chat: Chat) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    chat.set_theme("dark")
    dark = chat.page.evaluate(ground)
    chat.set_theme("light")
    light = chat.page.evaluate(ground)
    assert dark != light
    chat.set_theme("dark")
    chat.page.reload()
    chat.online()
    assert chat.page.evaluate(ground) == dark
    chat.set_theme("system")
    assert chat.page.evaluate(ground) == light
    chat.page.emulate_media(color_scheme="dark")
    chat.page.wait_for_function(f"wanted => {ground} === wanted", arg=dark)  # the page hears of it a moment later


def test_on_a_phone_the_list_is_in_a_drawer(tabs: Opener, chat_server: Server) -> None:
    chat = tabs(chat_server.url, width=360).open()
    assert chat.get("conversation-item").count() == 0
    chat.ask("你是谁？").until_status("complete")
    here = chat.conversation_id
    chat.get("open-drawer").click()
    chat.get("drawer").wait_for()
    chat.shot("drawer")
    assert not chat.overflows()
    assert chat.nameless() == []
    chat.page.keyboard.press("Escape")
    chat.get("drawer").wait_for(state="detached")
    chat.get("new-chat").click()
    chat.get("empty-chat").wait_for()
    chat.get("open-drawer").click()
    chat.page.locator(f"[data-testid=conversation-item][data-id='{here}'] a").click()
    chat.get("drawer").wait_for(state="detached")
    chat.until_status("complete")
    assert chat.conversation_id == here


def test_everything_works_from_the_keyboard(talker: Chat) -> None:
    talker.ask("Hi")
    talker.answers.first.wait_for()
    keyboard = talker.page.keyboard
    talker.tab_to("new-chat", "Shift+Tab")
    keyboard.press("Enter")
    talker.get("empty-chat").wait_for()
    until(lambda: talker.focused() == "composer")
    keyboard.type(LONG)
    keyboard.press("Shift+Enter")
    keyboard.type("Take your time.")
    assert talker.get("composer").input_value().count("\n") == 1
    keyboard.press("Enter")
    talker.until_written(10)
    talker.tab_to("stop")
    keyboard.press("Enter")
    talker.until_status("stopped")
    until(lambda: talker.focused() == "composer")
    keyboard.press("ArrowUp")
    until(lambda: talker.focused() == "edit-box")
    keyboard.press("Escape")
    talker.get("edit-box").wait_for(state="detached")
    talker.tab_to("settings", "Shift+Tab")
    keyboard.press("Enter")
    talker.get("language-zh").wait_for()
    talker.shot("keyboard-menu")
    keyboard.press("Escape")


def test_everything_that_can_be_operated_has_a_name(chat: Chat) -> None:
    assert chat.nameless() == []
    chat.ask("你是谁？").until_status("complete")
    assert chat.nameless() == []
    for opened in ("settings", "export", "conversation-actions"):
        chat.get(opened).first.click()
        chat.page.get_by_role("menu").wait_for()
        assert chat.nameless() == []
        chat.shot(f"menu-{opened}")
        chat.page.keyboard.press("Escape")
        chat.page.get_by_role("menu").wait_for(state="detached")
    assert chat.page.evaluate("document.querySelectorAll('h1').length") == 1
    assert chat.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)") == chat.page.evaluate(
        "[...new Set([...document.querySelectorAll('[id]')].map((e) => e.id))]"
    )


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

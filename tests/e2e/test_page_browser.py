"""The page in a real browser: languages, themes, widths, keyboard, names."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.e2e.chat_page import LONG, MESSAGE_KEY, PERSONA, TALKER, Chat, Opener
from tests.e2e.program import Server, until

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.browser, pytest.mark.timeout(1800)]

CJK = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"[A-Za-z]{2,}")
# Words that are the same in a Chinese interface.
SAME = {"Enter", "Shift", "Markdown", "JSON", "English", PERSONA, TALKER}


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

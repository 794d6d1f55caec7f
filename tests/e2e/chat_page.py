"""The chat as a person sees it: what can be done on the page, and what stands on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.program import PATIENCE, until

WAIT = PATIENCE * 1000
PERSONA = "three_rows_zh"
TALKER = "Talker"
NAME = "阿澈"
LONG = "Write a long story about a lighthouse keeper, with many details."
MESSAGE_KEY = re.compile(r"^[a-z][A-Za-z]*(\.[a-zA-Z]+)+$")

# What a person can read: text, and what is said of things that have none. Content that people or the model wrote is
# left out, because it is in whatever language they wrote it in.
_TEXTS = """() => {
  const foreign = '[data-testid=answer], [data-role=user] div.whitespace-pre-wrap, [data-testid=conversation-item] a, '
    + '[data-testid=chat-title], [data-testid=empty-chat] h1, [data-testid=suggestion], [data-testid=provenance]'
  const found = []
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT)
  for (let node = walk.currentNode; node; node = walk.nextNode()) {
    const element = node.nodeType === Node.TEXT_NODE ? node.parentElement : node
    if (!element || !element.checkVisibility() || element.closest(foreign) || element.closest('script, style')) continue
    if (node.nodeType === Node.TEXT_NODE) found.push(node.textContent)
    else for (const name of ['aria-label', 'title', 'placeholder', 'alt']) found.push(node.getAttribute(name) ?? '')
  }
  return found.map((text) => text.trim()).filter(Boolean)
}"""

_NEED_NAMES = {"button", "link", "textbox", "searchbox", "combobox", "menuitem", "menuitemradio", "option", "dialog"}


class Chat:
    """One tab.

    Attributes:
        complaints: errors in its console.
        expected: those of them that the test itself brings about.

    Args:
        page: a page of Playwright.
        url: where the server is.
        shots: folder for pictures.
    """

    def __init__(self, page: Any, url: str, shots: Path) -> None:
        self.page = page
        self.url = url
        self.shots = shots
        self.complaints: list[str] = []
        self.expected = re.compile("(?!)")
        page.set_default_timeout(WAIT)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: str = "/") -> Chat:
        """Open a page of the application and wait until it is in touch with the server."""
        self.page.goto(self.url + path)
        return self.online()

    def online(self) -> Chat:
        self.page.locator("[data-testid=connection-state][data-state=online]").wait_for()
        return self

    def get(self, name: str) -> Any:
        """The elements with this test id."""
        return self.page.get_by_test_id(name)

    @property
    def answers(self) -> Any:
        return self.page.locator("[data-testid=message][data-role=assistant]")

    @property
    def questions(self) -> Any:
        return self.page.locator("[data-testid=message][data-role=user]")

    @property
    def conversation_id(self) -> str:
        return self.page.url.rpartition("/c/")[2]

    def ask(self, question: str) -> Chat:
        """Type a question and send it with Enter."""
        self.get("composer").fill(question)
        self.get("composer").press("Enter")
        return self

    def text(self) -> str:
        """The last answer as far as it is written."""
        shown = self.answers.last.get_by_test_id("answer")
        return shown.inner_text() if shown.count() else ""

    def until_status(self, *statuses: str) -> Chat:
        """Wait until the last answer is in one of these states."""
        wanted = ", ".join(f"[data-status={status}]" for status in statuses)
        self.answers.last.and_(self.page.locator(wanted)).wait_for()
        return self

    def until_written(self, characters: int) -> str:
        """Wait until so much of the last answer stands there while it is still being written."""
        until(lambda: len(self.text()) >= characters)
        assert self.answers.last.get_attribute("data-status") == "generating", "the answer is too short for this test"
        return self.text()

    def set_language(self, name: str) -> Chat:
        self.get("settings").click()
        self.get(f"language-{name}").click()
        self.page.keyboard.press("Escape")
        self.get("language-switch").wait_for(state="detached")
        return self

    def set_theme(self, name: str) -> Chat:
        self.get("settings").click()
        self.get(f"theme-{name}").click()
        self.page.keyboard.press("Escape")
        self.get("language-switch").wait_for(state="detached")
        return self

    def texts(self) -> list[str]:
        """Every text of the application itself that can be seen or heard."""
        return self.page.evaluate(_TEXTS)

    def nameless(self) -> list[str]:
        """Things that can be operated and have no name for those who cannot see them."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        session.detach()
        return [
            node["role"]["value"]
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in _NEED_NAMES
            and not node.get("name", {}).get("value", "").strip()
        ]

    def overflows(self) -> bool:
        """Whether the page can be pushed sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    def focused(self) -> str | None:
        """Test id of what has the focus."""
        return self.page.evaluate("document.activeElement?.closest('[data-testid]')?.dataset.testid ?? null")

    def tab_to(self, name: str, key: str = "Tab", most: int = 60) -> None:
        """Walk with the keyboard until a thing has the focus."""
        for _ in range(most):
            if self.focused() == name:
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{name} cannot be reached with {key}")

    def shot(self, name: str) -> None:
        self.shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.shots / f"{name}.png")


Opener = Callable[..., Chat]


def with_talker(chat: Chat) -> Chat:
    """Choose the assistant whose answers are long, for the new conversation."""
    chat.get("assistant-picker").click()
    chat.page.get_by_role("option", name=re.compile(TALKER)).click()
    return chat

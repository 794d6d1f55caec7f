"""The real starter model, trained once on three rows; what comes of it is shared by the tests as copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
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
from tests.e2e.chat_page import PERSONA, TALKER, Chat, Opener, with_talker
from tests.e2e.program import MODEL, Server, clone, danlu, put_model, serving

ROWS = Path(__file__).with_name("three_rows_zh.json")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Trained:
    """What ``danlu quickstart`` on three rows left behind.

    Attributes:
        home: not to be changed; ``clone`` it.
        result: the object on stdout.
        err: what was told on stderr.
    """

    home: Path
    result: dict[str, Any]
    err: str

    @property
    def run(self) -> Path:
        return self.home / "runs" / self.result["run"]

    @property
    def version(self) -> Path:
        return self.home / "versions" / self.result["version"]


@pytest.fixture(autouse=True)
def give_room(tmp_path: Path) -> Iterator[None]:
    """Take the weights out of what pytest keeps of a test: half a gigabyte each."""
    yield
    for pattern in ("*/models", "*/versions", "*/runs/*/checkpoints", "merged"):
        for folder in tmp_path.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that holds the starter model and nothing else; kept between sessions in DANLU_TEST_MODEL_CACHE."""
    kept = os.environ.get("DANLU_TEST_MODEL_CACHE")
    home = Path(kept) if kept else tmp_path_factory.mktemp("starter")
    pulled = danlu(home, "models", "pull", MODEL, "--json", timeout=1500)
    assert pulled.code == 0, pulled.err
    assert pulled.json()["name"] == MODEL
    yield home
    if not kept:
        shutil.rmtree(home)


@pytest.fixture(scope="package")
def trained(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The whole path, once."""
    home = put_model(starter, tmp_path_factory.mktemp("trained") / "home")
    done = danlu(home, "quickstart", "--data", ROWS, "--no-serve", "--json", timeout=1500)
    assert done.code == 0, done.err
    yield Trained(home, done.json(), done.err)
    shutil.rmtree(home)


@pytest.fixture
def home(trained: Trained, tmp_path: Path) -> Path:
    """A home of the test's own with the trained assistant in it."""
    return clone(trained.home, tmp_path / "home")


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """``danlu up`` on that home; at the end Ctrl-C, exit code 0 and nobody left behind."""
    with serving(home) as running:
        running.until_ready()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser.

    Not for the session: Playwright keeps an event loop running in this thread, in which no other test's
    ``asyncio.run`` works.
    """
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("these tests need Chromium: make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def chat_server(chat_home: Path) -> Iterator[Server]:
    """``danlu up`` on that home."""
    with serving(chat_home) as running:
        running.until_ready()
        yield running


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
    """A tab of a new person."""
    return tabs(chat_server.url).open()


@pytest.fixture
def talker(chat: Chat) -> Chat:
    """A new conversation with the assistant whose answers are long."""
    return with_talker(chat)

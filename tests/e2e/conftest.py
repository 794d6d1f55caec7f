"""The real starter model, trained once on ten rows; what comes of it is shared by the tests as copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from danlu.samples import sample_path
from tests.e2e.program import MODEL, Server, clone, danlu, put_model, serving

ROWS = sample_path("ten_rows_zh.json")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Trained:
    """What ``danlu quickstart`` on ten rows left behind.

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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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

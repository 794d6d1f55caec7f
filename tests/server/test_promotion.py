"""Assistants change while the server runs and people are being answered: nobody notices but by what is said."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from danlu.chat.assistants import ensure_assistant
from danlu.models.versions import ModelVersion, load_version, save_version
from danlu.serving import registry
from danlu.settings import Home
from danlu.store.store import Store
from tests.server.clients import fetch, until
from tests.server.running import Running, running
from tests.server.test_with_engine import children, ready, services_over

HI = [{"role": "user", "content": "hi"}]


def second_version(home: Home) -> ModelVersion:
    """Register the same weights as another version."""
    shutil.copytree(home.versions / "tiny-1", home.versions / "tiny-2")
    version = load_version(home.versions / "tiny-2").model_copy(update={"id": "tiny-2", "name": "tiny two"})
    save_version(home.versions / "tiny-2", version)
    return version


@pytest.fixture
def server(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> Iterator[Running]:
    with running(services_over(tmp_path, tiny_folder, tiny_gguf)) as made:
        second_version(made.services.home)
        ready(made)
        yield made


@contextmanager
def callers(server: Running, number: int) -> Iterator[Callable[[], list[int]]]:
    """Let callers ask without pause; gives the statuses they got so far."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            asked = {"model": "麻薯", "messages": HI, "max_tokens": 30}
            statuses.append(fetch(server, "POST", "/v1/chat/completions", asked).status)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: list(statuses)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def version_in_service(server: Running) -> str:
    (assistant,) = fetch(server, "GET", "/api/assistants").json()["items"]
    return assistant["model"]["version_id"]


@pytest.mark.parametrize("roomy", [True, False])
def test_a_promotion_drops_no_answer(server: Running, monkeypatch: pytest.MonkeyPatch, roomy: bool) -> None:
    monkeypatch.setattr(registry, "_fits_beside", lambda _: roomy)
    states: set[str] = set()
    engines = len(children())  # other tests of this process may have theirs
    with callers(server, 6) as statuses:
        until(lambda: len(statuses()) > 6)
        before = server.services.registry.get("麻薯").gateway
        with Store.open(server.services.home) as store:
            store.assistants.promote("麻薯", "tiny-2", "auto")

        def changed() -> bool:
            states.add(fetch(server, "GET", "/health").json()["status"])
            return version_in_service(server) == "tiny-2" and server.services.registry.get("麻薯").gateway is not before

        until(changed, 60)
        count = len(statuses())
        until(lambda: len(statuses()) > count + 6, 60)
        seen = statuses()
    assert set(seen) == {200}
    # With room for two engines nobody waits; without, the server says that it is loading, and callers wait.
    assert states == {"healthy"} if roomy else states <= {"healthy", "loading"}
    until(lambda: len(children()) == engines, 30)
    answered = fetch(server, "POST", "/v1/chat/completions", {"model": "麻薯", "messages": HI, "max_tokens": 2})
    assert answered.status == 200
    with Store.open(server.services.home) as store:
        assert [item.version_id for item in store.assistants.history("麻薯")] == ["tiny-1", "tiny-2"]


def test_a_version_that_cannot_be_served_leaves_the_one_in_service(server: Running) -> None:
    home = server.services.home
    (home.versions / "tiny-2" / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with Store.open(home) as store:
        store.assistants.promote("麻薯", "tiny-2", "auto")

    def told() -> bool:
        (assistant,) = fetch(server, "GET", "/api/assistants").json()["items"]
        return bool(assistant["engine"]["detail"])

    until(told, 60)
    assert version_in_service(server) == "tiny-1"
    health = fetch(server, "GET", "/health").json()
    assert health["status"] == "healthy"
    assert "danlu assistants rollback 麻薯" in health["engine"]["detail"]
    assert fetch(server, "GET", "/answer?prompt=hi&max_tokens=2").status == 200


def test_assistants_that_the_command_line_makes_changes_and_removes_are_followed(server: Running) -> None:
    home = server.services.home
    engines = len(children())
    with Store.open(home) as store:
        ensure_assistant(store, load_version(home.versions / "tiny-1"), "two", "Hello", ())
        until(lambda: fetch(server, "GET", "/answer?prompt=hi&assistant=two&max_tokens=2").status == 200)
        assert len(children()) == engines, "two assistants on one version share an engine"
        ensure_assistant(store, load_version(home.versions / "tiny-1"), "two", "Good day", ())

        def greets() -> bool:
            items = fetch(server, "GET", "/api/assistants").json()["items"]
            return any(item["greeting"] == "Good day" for item in items)

        until(greets)
        store.assistants.remove("two")
        until(lambda: fetch(server, "GET", "/answer?prompt=hi&assistant=two").status == 404)
    assert fetch(server, "GET", "/answer?prompt=hi&max_tokens=2").status == 200


def test_each_conversation_finds_its_own_beginning_in_the_cache(
    tmp_path: Path, tiny_folder: Path, tiny_gguf: Path
) -> None:
    services = services_over(tmp_path, tiny_folder, tiny_gguf)
    with Store.open(services.home) as store:
        version = load_version(services.home.versions / "tiny-1")
        ensure_assistant(store, version, "麻薯", "", (), system="You keep a tea house on a hill. " * 8)
    with running(services) as server:
        ready(server)

        def turn(talk: list[dict[str, str]]) -> tuple[int, int]:
            asked = {"model": "麻薯", "messages": talk, "max_tokens": 12, "temperature": 0}
            reply = fetch(server, "POST", "/v1/chat/completions", asked).json()
            talk.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
            usage = reply["usage"]
            return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

        talks = [[{"role": "user", "content": f"{name} " * 20}] for name in ("tea", "cake", "rain")]
        firsts = [turn(talk) for talk in talks]
        # The system prompt has been read before the first caller came.
        assert firsts[0][1] > 200
        for _ in range(2):
            for talk, (read, _) in zip(talks, firsts, strict=True):
                talk.append({"role": "user", "content": "and then?"})
                whole, cached = turn(talk)
                assert cached >= read - 1, "all of the first turn"
                assert cached < whole


def test_a_rollback_is_a_promotion_of_the_version_before(server: Running) -> None:
    with Store.open(server.services.home) as store:
        for version in ("tiny-2", "tiny-1"):
            store.assistants.promote("麻薯", version, "auto")
            until(lambda version=version: version_in_service(server) == version, 60)
        assert [item.number for item in store.assistants.history("麻薯")] == [1, 2, 3]

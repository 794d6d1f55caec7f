"""The whole server with real engines: a tiny random model in llama.cpp, in a child process."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from danlu.chat.assistants import ensure_assistant
from danlu.models.versions import BaseModelRef, Export, GenerationDefaults, ModelVersion, save_version
from danlu.server.services import Services
from danlu.settings import Home, Settings
from danlu.store.store import Store
from tests.server.clients import Tab, fetch, new_conversation, until
from tests.server.running import Running, running


def make_version(home: Home, tiny_folder: Path, tiny_gguf: Path, **generation) -> ModelVersion:
    """Register the tiny model as a version, as the forge does."""
    folder = home.versions / "tiny-1"
    folder.mkdir(parents=True)
    shutil.copy(tiny_gguf, folder / "model.gguf")
    (folder / "tokenizer").mkdir()
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / "tokenizer")
    version = ModelVersion(
        id="tiny-1",
        name="tiny",
        created_at="2026-01-01T00:00:00Z",
        base=BaseModelRef(name="random"),
        max_context=4096,
        generation=GenerationDefaults(**{"temperature": 0.0, "max_tokens": 24, **generation}),
        exports=(Export(format="gguf", quant="f32", path="model.gguf", bytes=tiny_gguf.stat().st_size),),
    )
    save_version(folder, version)
    return version


def services_over(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path, **generation) -> Services:
    settings = Settings(home=tmp_path)
    home = Home(tmp_path).make()
    version = make_version(home, tiny_folder, tiny_gguf, **generation)
    with Store.open(home) as store:
        ensure_assistant(store, version, "麻薯", "你好", ["你是谁?"])
    return Services(settings)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "_child" in " ".join(child.cmdline())]


def ready(server: Running) -> None:
    until(lambda: fetch(server, "GET", "/readyz").status == 200, 120)


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_folder: Path, tiny_gguf: Path) -> Iterator[Running]:
    with running(services_over(tmp_path_factory.mktemp("home"), tiny_folder, tiny_gguf)) as made:
        ready(made)
        yield made


def test_the_page_is_up_while_the_engine_loads_and_no_child_is_left(
    tmp_path: Path, tiny_folder: Path, tiny_gguf: Path
) -> None:
    before = len(children())
    with running(services_over(tmp_path, tiny_folder, tiny_gguf)) as server:
        first = fetch(server, "GET", "/health").json()
        assert first["status"] in {"loading", "healthy"}
        (assistant,) = fetch(server, "GET", "/api/assistants").json()["items"]
        assert assistant["name"] == "麻薯"
        ready(server)
        value = fetch(server, "GET", "/health").json()
        assert (value["status"], value["model"], value["engine"]["kind"]) == ("healthy", "tiny", "llamacpp")
        assert len(children()) == before + 1
    until(lambda: len(children()) == before)


def test_a_question_in_the_chat_is_answered_by_the_engine(server: Running) -> None:
    tab = Tab(server, new_conversation(server)).connect()
    made = tab.send("who are you?")
    tab.until(tab.finished(made["assistant_message_id"]))
    answer = tab.messages[made["assistant_message_id"]]
    assert (answer["status"], answer["error"]) == ("complete", None)
    origin = answer["provenance"]
    assert (origin["assistant"], origin["version"], origin["engine"]) == ("麻薯", "tiny-1", "llamacpp")
    assert (origin["tokens"], origin["finish_reason"]) == (24, "length")
    # Greedy: the same prompt by another door gives the same text.
    body = {"messages": [{"role": "user", "content": "who are you?"}]}
    other = fetch(server, "POST", "/v1/chat/completions", body).json()
    assert other["choices"][0]["message"]["content"] == answer["content"]
    assert fetch(server, "POST", "/answer", {"prompt": "who are you?"}).json()["generated_text"] == answer["content"]


def test_the_history_is_given_to_the_engine(server: Running) -> None:
    tab = Tab(server, new_conversation(server)).connect()
    first = tab.send("one")["assistant_message_id"]
    tab.until(tab.finished(first))
    second = tab.send("two", parent=first)["assistant_message_id"]
    tab.until(tab.finished(second))
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": tab.text(first)},
        {"role": "user", "content": "two"},
    ]
    other = fetch(server, "POST", "/v1/chat/completions", {"messages": messages}).json()
    assert other["choices"][0]["message"]["content"] == tab.text(second)


def test_health_answers_while_eight_answers_run(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> None:
    with running(services_over(tmp_path, tiny_folder, tiny_gguf, max_tokens=4000)) as server:
        ready(server)
        connections = []
        for _ in range(8):
            connection = http.client.HTTPConnection(server.netloc, timeout=30)
            connection.request("GET", "/answer?prompt=hi&stream=true")
            connections.append(connection)
        until(lambda: fetch(server, "GET", "/health").json()["queue"]["waiting"] == 4)
        assert fetch(server, "GET", "/health").json()["queue"]["running"] == 4
        for connection in connections:
            connection.close()
        until(lambda: fetch(server, "GET", "/health").json()["queue"]["running"] == 0)


def test_stop_frees_the_engine(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> None:
    with running(services_over(tmp_path, tiny_folder, tiny_gguf, max_tokens=4000)) as server:
        ready(server)
        tab = Tab(server, new_conversation(server)).connect()
        answer = tab.send("go on")["assistant_message_id"]
        tab.until(lambda t: t.text(answer))
        assert tab.ask("stop", message_id=answer)["type"] == "ack"
        tab.until(tab.finished(answer))
        assert tab.status(answer) == "stopped"
        assert tab.messages[answer]["provenance"]["tokens"] < 4000
        assert fetch(server, "GET", "/health").json()["queue"]["running"] == 0


def test_an_engine_killed_in_the_middle_of_an_answer_fails_it_and_comes_back(
    tmp_path: Path, tiny_folder: Path, tiny_gguf: Path
) -> None:
    before = {child.pid for child in children()}
    with running(services_over(tmp_path, tiny_folder, tiny_gguf, max_tokens=4000)) as server:
        ready(server)
        tab = Tab(server, new_conversation(server)).connect()
        answer = tab.send("go on")["assistant_message_id"]
        tab.until(lambda t: t.text(answer))
        for child in children():
            if child.pid not in before:
                child.kill()
        tab.until(tab.finished(answer))
        failed = tab.messages[answer]
        assert failed["status"] == "failed"
        assert failed["content"]
        assert failed["error"]["fix"]
        tab.until(lambda t: any(frame["type"] == "engine" for frame in t.others))
        ready(server)
        again = tab.ask("regenerate", client_id=uuid4().hex, message_id=answer)["assistant_message_id"]
        tab.until(lambda t: t.text(again))
        tab.ask("stop", message_id=again)


@pytest.mark.parametrize("damage", ["no version", "no tokenizer", "no weights", "broken weights"])
def test_an_assistant_that_cannot_be_served_says_why_and_the_rest_works(
    tmp_path: Path, tiny_folder: Path, tiny_gguf: Path, damage: str
) -> None:
    services = services_over(tmp_path, tiny_folder, tiny_gguf)
    folder = tmp_path / "versions" / "tiny-1"
    if damage == "no version":
        shutil.rmtree(folder)
    elif damage == "no tokenizer":
        shutil.rmtree(folder / "tokenizer")
    elif damage == "no weights":
        (folder / "model.gguf").unlink()
    else:
        (folder / "model.gguf").write_bytes(b"GGUF" + b"\xff" * 1000)
    with running(services) as server:
        end = time.monotonic() + 120
        while fetch(server, "GET", "/health").json()["status"] != "degraded":
            assert time.monotonic() < end
            time.sleep(0.1)
        (assistant,) = fetch(server, "GET", "/api/assistants").json()["items"]
        assert assistant["engine"]["state"] == "failed"
        assert assistant["engine"]["detail"]
        tab = Tab(server, new_conversation(server)).connect()
        answer = tab.send("hello?")["assistant_message_id"]
        tab.until(tab.finished(answer))
        assert tab.status(answer) == "failed"
        assert tab.messages[answer]["error"]["fix"]
        assert fetch(server, "GET", "/answer?prompt=x").status >= 400
        assert json.loads(fetch(server, "GET", f"/api/conversations/{tab.conversation_id}").body)["messages"]

"""The API as programs use it: the official client, keys, Anthropic's format, the WebSocket, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from danlu.accounts.keys import create_key
from danlu.chat.assistants import ensure_assistant
from danlu.models.versions import load_version
from danlu.server.books import ANSWERS_FILE
from danlu.server.services import Services
from danlu.settings import Settings
from danlu.store.store import Store
from tests.server.clients import fetch, until
from tests.server.running import Running, running
from tests.server.test_with_engine import ready, services_over

HI: Any = [{"role": "user", "content": "hi"}]
ASCII = {str(token): -100 for token in range(94, 261)}


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_folder: Path, tiny_gguf: Path) -> Iterator[Running]:
    """A real server with a real engine that writes ASCII only when asked to, and two assistants on it."""
    services = services_over(tmp_path_factory.mktemp("home"), tiny_folder, tiny_gguf)
    with Store.open(services.home) as store:
        ensure_assistant(store, load_version(services.home.versions / "tiny-1"), "other", "", ())
    with running(services) as made:
        ready(made)
        until(lambda: len(fetch(made, "GET", "/v1/models").json()["data"]) == 2)
        yield made


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


# The official client


def test_the_client_lists_and_describes_models(client: OpenAI) -> None:
    names = {model.id for model in client.models.list().data}
    assert names == {"麻薯", "other"}
    assert client.models.retrieve("麻薯").owned_by == "danlu"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_several_answers_come_whole_with_their_probabilities(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model="other", messages=HI, n=3, max_completion_tokens=6, logprobs=True, top_logprobs=2, logit_bias=ASCII,
        temperature=1.0, seed=7,
    )  # fmt: skip
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in made.choices}) == 3, "each has a seed of its own"
    for choice in made.choices:
        assert choice.finish_reason == "length"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert made.usage is not None
    assert made.usage.completion_tokens == 18
    again = client.chat.completions.create(
        model="other", messages=HI, n=3, max_completion_tokens=6, logit_bias=ASCII, temperature=1.0, seed=7
    )
    assert [choice.message.content for choice in again.choices] == [choice.message.content for choice in made.choices]


def test_streamed_answers_are_those_that_come_whole(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "other", "messages": HI, "n": 2, "max_tokens": 8, "logit_bias": ASCII, "temperature": 1.0, "seed": 3
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == ["length", "length"]
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens == 16


def test_an_answer_follows_the_schema_of_a_type(client: OpenAI) -> None:
    from typing import Literal

    from pydantic import BaseModel

    class Weather(BaseModel):
        sky: Literal["grey", "blue"]
        windy: bool

    made = client.chat.completions.parse(model="other", messages=HI, max_tokens=120, response_format=Weather)
    parsed = made.choices[0].message.parsed
    assert parsed is not None
    assert parsed.sky in {"grey", "blue"}


def test_completions_continue_several_prompts_and_repeat_them(client: OpenAI) -> None:
    made = client.completions.create(
        model="other", prompt=["once", "twice"], max_tokens=4, logit_bias=ASCII, temperature=0, logprobs=1, echo=True
    )
    assert [choice.text[: len(text)] for choice, text in zip(made.choices, ("once", "twice"), strict=True)] == [
        "once", "twice",
    ]  # fmt: skip
    assert [choice.logprobs.text_offset[0] for choice in made.choices if choice.logprobs] == [4, 5]
    streamed = ["", ""]
    for chunk in client.completions.create(
        model="other", prompt=["once", "twice"], max_tokens=4, logit_bias=ASCII, temperature=0, stream=True, echo=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in made.choices]


def test_texts_become_vectors(client: OpenAI) -> None:
    # The client asks for base64 and unpacks it; asked for floats it gets the same.
    packed = client.embeddings.create(model="other", input=["a", "你好"])
    plain = client.embeddings.create(model="other", input=["a", "你好"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 64
    assert packed.usage.prompt_tokens == plain.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("changes", "kind", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, None),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"something_new": 1}}, openai.BadRequestError, "something_new"),
        ({"messages": [{"role": "user", "content": "x" * 9000}]}, openai.APIStatusError, None),
    ],
)
def test_errors_are_those_that_the_client_knows(client: OpenAI, changes: Any, kind: Any, param: str | None) -> None:
    with pytest.raises(kind) as error:
        client.chat.completions.create(**{"model": "other", "messages": HI, **changes})
    assert error.value.param == param
    assert error.value.request_id, "every answer has an id"


# Anthropic's messages


def test_messages_come_whole_and_as_named_events(server: Running) -> None:
    asked = {"model": "other", "messages": HI, "max_tokens": 8, "temperature": 0}
    whole = fetch(server, "POST", "/v1/messages", asked).json()
    assert (whole["type"], whole["role"], whole["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert whole["usage"]["output_tokens"] == 8
    reply = fetch(server, "POST", "/v1/messages", {**asked, "stream": True})
    events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert [events[0]["type"], events[1]["type"]] == ["message_start", "content_block_start"]
    assert [event["type"] for event in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert [{"type": "text", "text": text}] == whole["content"]
    refused = fetch(server, "POST", "/v1/messages", {**asked, "model": "claude"})
    assert (refused.status, refused.json()["error"]["type"]) == (404, "not_found_error")


# The WebSocket for back ends


def ask(socket: ClientConnection, **fields: Any) -> None:
    socket.send(json.dumps({"type": "ask", **fields}))


def answer_of(socket: ClientConnection, question: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    while not made or made[-1]["type"] not in {"done", "error", "stopped"}:
        value = json.loads(socket.recv(30))
        if value["id"] == question:
            made.append(value)
    return made


def answers_url(server: Running) -> str:
    return server.url.replace("http", "ws") + "/ws/answers"


def test_one_connection_carries_many_questions(server: Running, client: OpenAI) -> None:
    expected = client.chat.completions.create(model="other", messages=HI, max_tokens=6, temperature=0)
    with connect(answers_url(server)) as socket:
        for number in range(3):
            ask(socket, id=f"q{number}", prompt="hi", model="other", max_tokens=6, temperature=0)
        done: dict[str, dict[str, Any]] = {}
        texts = {f"q{number}": "" for number in range(3)}
        while len(done) < 3:
            value = json.loads(socket.recv(30))
            if value["type"] == "text":
                texts[value["id"]] += value["content"]
            elif value["type"] == "done":
                done[value["id"]] = value
    for question, value in done.items():
        assert value["content"] == texts[question] == expected.choices[0].message.content
        assert (value["finish_reason"], value["usage"]["completion_tokens"]) == ("length", 6)


def test_an_answer_is_stopped_and_the_connection_goes_on(server: Running) -> None:
    with connect(answers_url(server)) as socket:
        ask(socket, id="long", prompt="hi", model="other", max_tokens=3000)
        while json.loads(socket.recv(30))["type"] != "text":
            pass
        ask(socket, id="long", prompt="twice the same id")
        socket.send(json.dumps({"type": "stop", "id": "long"}))
        kinds = [value["type"] for value in answer_of(socket, "long")]
        assert kinds[-1] in {"stopped", "error"}
        ask(socket, id="next", prompt="hi", model="other", max_tokens=2)
        assert answer_of(socket, "next")[-1]["type"] == "done"
    until(lambda: fetch(server, "GET", "/health").json()["queue"]["running"] == 0)


@pytest.mark.parametrize(
    ("sent", "question", "param"),
    [
        ("nonsense", None, None),
        ('{"type": "sing", "id": "a"}', "a", "type"),
        ('{"type": "ask", "id": "a"}', "a", "messages"),
        ('{"type": "ask", "id": "a", "prompt": "x", "n": 2}', "a", "n"),
        ('{"type": "ask", "id": "a", "prompt": "x", "temperature": 9}', "a", "temperature"),
        ('{"type": "ask", "id": "a", "prompt": "x", "model": "gpt-4"}', "a", None),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_its_id(
    server: Running, sent: str, question: str | None, param: str | None
) -> None:
    with connect(answers_url(server)) as socket:
        socket.send(sent)
        value = json.loads(socket.recv(30))
        assert (value["id"], value["type"], value["error"]["param"]) == (question, "error", param)


# Metrics, ids and the log


def metrics(server: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(fetch(server, "GET", "/metrics").body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def sample(server: Running, name: str, **labels: str) -> float:
    return metrics(server).get((name, frozenset(labels.items())), 0.0)


def test_metrics_count_what_is_asked(server: Running, client: OpenAI) -> None:
    labels = {"model": "other", "route": "/v1/chat/completions", "outcome": "length"}
    before = sample(server, "danlu_requests_total", **labels)
    tokens = sample(server, "danlu_tokens_total", model="other", kind="completion")
    client.chat.completions.create(model="other", messages=HI, max_tokens=5)
    assert sample(server, "danlu_requests_total", **labels) == before + 1
    assert sample(server, "danlu_tokens_total", model="other", kind="completion") == tokens + 5
    assert sample(server, "danlu_engine_state", model="other", state="ready") == 1
    assert sample(server, "danlu_slots", model="other") >= 1
    assert sample(server, "danlu_time_to_first_token_seconds_count", model="other") >= 1


def test_a_callers_own_id_is_in_the_answer_and_in_the_log_and_no_text_is(server: Running) -> None:
    asked = {"model": "other", "messages": [{"role": "user", "content": "a secret"}], "max_tokens": 3}
    reply = fetch(server, "POST", "/v1/chat/completions", asked, headers={"X-Request-Id": "order-7"})
    assert reply.headers["x-request-id"] == "order-7"
    file = server.services.home.logs / ANSWERS_FILE
    until(lambda: file.exists() and "order-7" in file.read_text(encoding="utf-8"))
    (line,) = (json.loads(row) for row in file.read_text(encoding="utf-8").splitlines() if "order-7" in row)
    assert (line["assistant"], line["route"], line["outcome"]) == ("other", "/v1/chat/completions", "length")
    assert line["completion_tokens"] == 3
    assert "secret" not in file.read_text(encoding="utf-8")
    strange = fetch(server, "GET", "/livez", headers={"X-Request-Id": "a b\tc"})
    assert strange.headers["x-request-id"] != "a b\tc"


# Keys


@pytest.fixture
def keyed(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> Iterator[tuple[Running, dict[str, str]]]:
    services = services_over(tmp_path, tiny_folder, tiny_gguf)
    secrets = {}
    with Store.open(services.home) as store:
        ensure_assistant(store, load_version(services.home.versions / "tiny-1"), "other", "", ())
        for name, bounds in {
            "all": {},
            "scoped": {"assistants": ("other",)},
            "slow": {"requests_per_minute": 2},
            "poor": {"tokens_per_day": 10},
        }.items():
            secrets[name] = create_key(store, name, **bounds).secret  # type: ignore[arg-type]
    with running(services) as made:
        until(lambda: sorted(made.services.registry.names()) == ["other", "麻薯"])
        ready(made)
        yield made, secrets


def call(server: Running, secret: str | None, model: str = "other", **fields: Any) -> Any:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    asked = {"model": model, "messages": HI, "max_tokens": 4, **fields}
    return fetch(server, "POST", "/v1/chat/completions", asked, headers=headers)


def test_keys_open_bound_and_close(keyed: tuple[Running, dict[str, str]]) -> None:
    server, secrets = keyed
    # Nobody without a key, on any of the addresses; health and the web page need none.
    for method, path in (
        ("GET", "/answer?prompt=x"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/other"),
        ("POST", "/v1/embeddings"),
    ):
        assert fetch(server, method, path, {} if method == "POST" else None).status == 401, path
    refused = call(server, "dk-wrong")
    assert (refused.status, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert call(server, None).json()["error"]["type"] == "authentication_error"
    assert fetch(server, "GET", "/health").status == 200
    assert fetch(server, "GET", "/api/assistants").status == 200
    with pytest.raises(InvalidStatus) as denied, connect(answers_url(server)):
        pass
    assert denied.value.response.status_code == 401

    # A key of its own; Anthropic's header does, too.
    assert call(server, secrets["all"]).status == 200
    assert fetch(server, "GET", "/v1/models", headers={"x-api-key": secrets["all"]}).status == 200

    # Only what it may ask for, also when it names nobody.
    mine = {"Authorization": f"Bearer {secrets['scoped']}"}
    assert [m["id"] for m in fetch(server, "GET", "/v1/models", headers=mine).json()["data"]] == ["other"]
    assert call(server, secrets["scoped"], "麻薯").status == 404
    assert fetch(server, "GET", "/answer?prompt=x&max_tokens=2", headers=mine).json()["model"] == "other"

    # So often a minute, and so much a day.
    assert [call(server, secrets["slow"]).status for _ in range(3)] == [200, 200, 429]
    limited = call(server, secrets["slow"])
    assert limited.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(limited.headers["retry-after"]) <= 60
    assert call(server, secrets["poor"]).status == 200
    until(lambda: call(server, secrets["poor"]).status == 429)
    assert call(server, secrets["poor"]).json()["error"]["code"] == "insufficient_quota"

    # What was used is known, and a revoked key is refused while the server runs.
    with Store.open(server.services.home) as store:
        names = {key.id: key.name for key in store.keys.list()}
        until(lambda: any(names[one.key_id] == "all" for one in store.keys.usage(days=1)))
        used = {names[one.key_id]: one for one in store.keys.usage(days=1)}
        assert used["all"].requests == 1
        assert used["all"].completion_tokens == 4
        assert used["all"].prompt_tokens > 0
        store.keys.revoke("all")
    until(lambda: call(server, secrets["all"]).status == 401)


def test_a_fixed_key_is_enough_for_one_program(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> None:
    services_over(tmp_path, tiny_folder, tiny_gguf)
    services = Services(Settings(home=tmp_path, api_key="a-fixed-key"))
    with running(services) as server:
        ready(server)
        assert call(server, None, "麻薯").status == 401
        assert call(server, "a-fixed-kez", "麻薯").status == 401
        assert call(server, "a-fixed-key", "麻薯").status == 200

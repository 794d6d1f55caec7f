"""Whatever is sent that the description allows, or does not allow, is answered and never breaks the server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.server.clients import fetch
from tests.server.running import Running, running, scripted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(scripted(tmp_path_factory.mktemp("home"))) as made:
        yield made


def answers_to(operation: APIOperation, mode: GenerationMode) -> set[int]:
    """Send what the description allows, or what it does not, and return the statuses that came."""
    seen: set[int] = set()

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        response = case.call(timeout=20)
        seen.add(response.status_code)
        assert response.status_code < 500, f"{case.as_curl_command()}\n{response.text}"
        if response.status_code >= 400:
            body = response.json()
            assert "error" in body or {"title", "detail", "code", "fix"} <= set(body), "an error says what to do"

    send()
    return seen


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_address_breaks_on_what_its_description_allows_or_forbids(server: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # any text will do for a name in an address
        tried[f"{operation.method.upper()} {operation.path}"] = answers_to(operation, mode)
    assert {"POST /v1/chat/completions", "POST /answer", "POST /v1/embeddings", "POST /v1/messages"} <= set(tried)
    if mode is GenerationMode.POSITIVE:
        assert 200 in tried["POST /v1/chat/completions"] | tried["POST /answer"]
    assert fetch(server, "GET", "/health").json()["queue"]["running"] == 0, "nothing is left running"


def test_the_bodies_of_openais_routes_are_described(server: Running) -> None:
    document = fetch(server, "GET", "/openapi.json").json()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "tools", "response_format", "n", "logprobs"} <= set(body["properties"])
    marks = json.dumps(document).split('"#/components/schemas/')[1:]
    references = {mark.partition('"')[0] for mark in marks}
    assert references <= set(document["components"]["schemas"]), "no reference leads nowhere"

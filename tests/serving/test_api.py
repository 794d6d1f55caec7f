"""The routes' functions and the registry, over a real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from danlu.errors import EngineError, ModelError, NotFoundError, UsageError
from danlu.models.chat_format import ChatFormat
from danlu.models.versions import BaseModelRef, Export, GenerationDefaults, ModelVersion, save_version
from danlu.serving import api
from danlu.serving.engine import EngineSpec
from danlu.serving.registry import GatewayRegistry
from danlu.serving.served import SamplingOverrides, ServedModel
from danlu.serving.supervisor import ChildEngine

from .conftest import Run, asking, collect, until

DEFAULTS = GenerationDefaults(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=12)


@pytest.fixture(scope="module")
def served(llamacpp_spec: EngineSpec, prompts: ChatFormat) -> ServedModel:
    return ServedModel(
        name="alchemist",
        version_id="v1",
        version_name="tiny tuned",
        base="tiny",
        spec=llamacpp_spec,
        prompts=prompts,
        defaults=DEFAULTS,
        encoder=lambda text: list(prompts.tokenizer(text)["input_ids"]),
    )


@pytest.fixture(scope="module")
def registry(run: Run[Any], served: ServedModel) -> Iterator[GatewayRegistry]:
    async def make() -> GatewayRegistry:
        registry = GatewayRegistry()
        entry = await registry.serve(served)
        await entry.gateway.wait_ready(120)
        return registry

    made = run(make())
    yield made
    run(made.close())


def post(run: Run[Any], function: Any, registry: GatewayRegistry, **body: Any) -> Any:
    """Return the JSON of an answer, or the events of a stream ([DONE] as a text)."""

    async def call() -> Any:
        result = await function(registry, json.dumps(body).encode())
        if isinstance(result, dict):
            return result
        raw = b"".join([chunk async for chunk in result]).decode()
        data = [line[6:] for line in raw.splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in data]

    return run(call())


HI = [{"role": "user", "content": "hi"}]


def test_a_streamed_chat_answer_equals_the_whole_one(run: Run[Any], registry: GatewayRegistry) -> None:
    whole = post(run, api.chat_completions, registry, messages=HI, model="alchemist")
    options = {"include_usage": True}
    *chunks, last, done = post(run, api.chat_completions, registry, messages=HI, stream=True, stream_options=options)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 12
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1
    assert {chunk["model"] for chunk in chunks} == {"alchemist"}


def test_a_stream_without_usage_ends_with_the_finish_reason(run: Run[Any], registry: GatewayRegistry) -> None:
    *_, last, done = post(run, api.chat_completions, registry, messages=HI, stream=True)
    assert done == "[DONE]"
    assert last["choices"][0]["finish_reason"] == "length"
    assert "usage" not in last


def test_completions_give_the_prompt_to_the_model_as_it_is(
    run: Run[Any], registry: GatewayRegistry, prompts: ChatFormat
) -> None:
    messages = tuple(asking("hi").messages)
    text = prompts.prompt_text(messages)
    chat = post(run, api.chat_completions, registry, messages=HI)["choices"][0]["message"]["content"]
    from_text = post(run, api.completions, registry, prompt=text, max_tokens=12)
    from_ids = post(run, api.completions, registry, prompt=prompts.prompt_ids(messages), max_tokens=12)
    assert from_text["choices"][0]["text"] == from_ids["choices"][0]["text"] == chat
    *chunks, done = post(run, api.completions, registry, prompt=text, max_tokens=12, stream=True)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == chat


def test_answer_gives_the_answer_alone(run: Run[Any], registry: GatewayRegistry) -> None:
    whole = run(api.answer(registry, {"prompt": "hi", "max_length": "5"}))
    assert set(whole) == {"generated_text", "model", "finish_reason"}
    assert (whole["model"], whole["finish_reason"]) == ("alchemist", "length")
    *pieces, last, done = post(run, api.answer, registry, prompt="hi", max_tokens=5, stream=True)
    assert "".join(piece["text"] for piece in pieces) == last["generated_text"] == whole["generated_text"]
    assert done == "[DONE]"


def test_an_assistants_own_system_prompt_replaces_the_saved_one(served: ServedModel) -> None:
    own = replace(served, system="You are brief.")
    assert own.request(asking("x").messages).messages[0].content == "You are brief."
    given = own.request((*asking("x").messages,), SamplingOverrides(max_tokens=3, temperature=0.9))
    assert (given.sampling.max_tokens, given.sampling.temperature, given.sampling.top_p) == (3, 0.9, 1.0)


def test_unknown_models_are_not_found_and_the_served_ones_are_listed(run: Run[Any], registry: GatewayRegistry) -> None:
    with pytest.raises(NotFoundError):
        post(run, api.chat_completions, registry, messages=HI, model="gpt-9")
    with pytest.raises(NotFoundError):
        api.model(registry, "gpt-9")
    assert [item["id"] for item in api.models(registry)["data"]] == ["alchemist"]
    assert api.model(registry, "alchemist")["object"] == "model"


def test_a_prompt_beyond_the_context_has_a_status_even_when_streamed(run: Run[Any], registry: GatewayRegistry) -> None:
    with pytest.raises(Exception, match="tokens") as error:
        post(run, api.completions, registry, prompt=[1] * 70_000, stream=True)
    assert api.error_response(error.value)[0] == 413  # type: ignore[arg-type]


def test_an_answer_whose_caller_has_gone_is_cancelled(run: Run[Any], registry: GatewayRegistry) -> None:
    async def leave() -> None:
        door = registry.get().gateway
        body = json.dumps({"messages": HI, "max_tokens": 60_000})

        async def gone() -> None:
            await until(lambda: door.health().running == 1)

        assert await api.until_gone(api.chat_completions(registry, body), gone()) is None
        assert door.health().running == 0
        result = await api.until_gone(api.chat_completions(registry, json.dumps({"messages": HI})), asyncio.sleep(600))
        assert isinstance(result, dict)

    run(leave())


def test_an_engine_that_breaks_off_in_mid_stream_is_an_error_event_without_done(
    run: Run[Any], registry: GatewayRegistry
) -> None:
    async def broken() -> list[bytes]:
        engine = registry.get().gateway.engine
        assert isinstance(engine, ChildEngine)
        assert engine.pid is not None
        result = await api.chat_completions(
            registry, json.dumps({"messages": HI, "max_tokens": 60_000, "stream": True})
        )
        assert not isinstance(result, dict)
        chunks = []
        async for chunk in result:
            if len(chunks) == 5:
                psutil.Process(engine.pid).kill()
            chunks.append(chunk)
        await registry.get().gateway.wait_ready(60)
        return chunks

    last = run(broken())[-1]
    assert json.loads(last[6:])["error"]["type"] == "server_error"


def test_names_on_one_version_share_its_engine_and_the_last_one_ends_it(
    run: Run[Any], registry: GatewayRegistry, served: ServedModel
) -> None:
    async def share() -> None:
        entry = await registry.serve(replace(served, name="second", system="Be brief."))
        assert entry.gateway is registry.get("alchemist").gateway
        assert registry.names() == ["alchemist", "second"]
        await registry.remove("second")
        await asyncio.sleep(0.2)
        assert registry.get("alchemist").gateway.engine.state.state == "ready"

    run(share())


def test_a_promoted_version_replaces_the_old_one_without_a_dropped_answer(run: Run[Any], served: ServedModel) -> None:
    async def promote() -> None:
        registry = GatewayRegistry()
        told: list[tuple[str, str]] = []
        registry.subscribe(lambda name, state: told.append((name, state.state)))
        old = await registry.serve(served)
        await old.gateway.wait_ready(120)
        running = asyncio.create_task(collect(old.gateway.generate(asking("x", 3000))))
        await until(lambda: old.gateway.health().tokens > 0)
        spec = replace(served.spec, model_id="v2", slots=1)
        new = await registry.serve(replace(served, version_id="v2", spec=spec))
        assert registry.get("alchemist") is new
        assert new.gateway.engine.state.state == "ready"
        assert (await collect(new.gateway.generate(asking("y", 4))))[2].completion_tokens == 4
        assert (await running)[2].completion_tokens == 3000
        await until(lambda: old.gateway.engine.state.state == "stopped")
        assert told[0] == ("alchemist", "loading")
        await registry.close()
        assert new.gateway.engine.state.state == "stopped"

    run(promote())


def test_a_version_that_does_not_start_leaves_the_old_one_serving(
    run: Run[Any], registry: GatewayRegistry, served: ServedModel, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    bad = replace(served, version_id="v3", spec=replace(served.spec, model_id="v3", weights=broken))

    async def promote() -> None:
        before = registry.get("alchemist")
        with pytest.raises(EngineError):
            await registry.serve(bad)
        assert registry.get("alchemist") is before
        assert (await collect(before.gateway.generate(asking("y", 4))))[2].completion_tokens == 4

    run(promote())


def test_a_served_model_is_read_from_a_version_folder(tmp_path: Path, tiny_folder: Path, tiny_gguf: Path) -> None:
    home = tmp_path / "home"
    folder = home / "versions" / "v1"
    folder.mkdir(parents=True)
    (folder / "tokenizer").symlink_to(tiny_folder)
    (folder / "model.gguf").symlink_to(tiny_gguf)
    exports = [Export(format="gguf", quant="f32", path="model.gguf", bytes=1)]
    version = ModelVersion(id="v1", name="mine", created_at="2026-01-01T00:00:00Z", base=BaseModelRef(name="tiny"))

    def write(**changes: Any) -> None:
        save_version(folder, version.model_copy(update={"exports": tuple(exports), "system": "Be kind.", **changes}))

    write()
    served = ServedModel.from_version(folder)
    assert (served.name, served.base, served.spec.context) == ("mine", "tiny", 2048)
    assert served.spec.weights == folder / "model.gguf"
    assert served.prompts is not None
    assert len(served.prompts.prompt_ids(asking("x").messages)) > 8

    with pytest.raises(NotFoundError):  # neither merged weights nor an adapter
        ServedModel.from_version(folder, engine="transformers")
    (folder / "adapter").mkdir()
    exports.append(Export(format="adapter", path="adapter", bytes=1))
    write()
    with pytest.raises(NotFoundError, match="tiny"):  # the adapter's base is not there
        ServedModel.from_version(folder, engine="transformers")
    (home / "models").mkdir()
    (home / "models" / "tiny").symlink_to(tiny_folder)
    spec = ServedModel.from_version(folder, engine="transformers").spec
    assert (spec.weights, spec.adapter, spec.slots) == (home / "models" / "tiny", folder / "adapter", 1)

    far = ServedModel.from_version(folder, engine="openai:http://gpu:8000/v1").spec
    assert (far.kind, far.url, far.wire) == ("openai", "http://gpu:8000/v1", "chat")
    for wrong in ("openai:file:///etc/passwd", "openai:", "ollama"):
        with pytest.raises(UsageError):
            ServedModel.from_version(folder, engine=wrong)
    with pytest.raises((NotFoundError, ModelError)):
        ServedModel.from_version(home / "versions" / "v9")

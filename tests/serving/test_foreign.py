"""Servers of others: what they send, what they do wrong, and what they are asked before they are believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from danlu.errors import EngineError, EngineTimeoutError, UsageError
from danlu.serving.engine import EngineSpec, GenerationRequest, Sampling, TextPiece
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.openai_engine import OpenAIEngine

from .conftest import Run, asking, collect, until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def foreign(handler: Handler, wire: str = "chat", limits: Limits | None = None) -> AsyncIterator[Gateway]:
    app = web.Application()

    async def guarded(request: web.Request) -> web.StreamResponse:
        """Answer the probe well: what the test wants is for its own questions."""
        if (await request.json())["max_tokens"] == 1:
            return await _token(request)
        return await handler(request)

    app.router.add_post("/v1/chat/completions", guarded)
    app.router.add_post("/v1/completions", guarded)
    app.router.add_get("/v1/models", _ok)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}"
    spec = EngineSpec(kind="openai", model_id="far", url=url, wire=wire, slots=2, context=1000)  # type: ignore[arg-type]
    door = Gateway(OpenAIEngine(spec), None, limits)
    await door.start()
    try:
        yield door
    finally:
        await door.stop()
        await runner.cleanup()


async def _token(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    choice = {"index": 0, "text": "a", "delta": {"content": "a"}, "finish_reason": "length"}
    await response.write(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode())
    return response


async def _ok(_: web.Request) -> web.Response:
    return web.json_response({"data": []})


def streaming(*lines: str, end: bool = True) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in lines:
            await response.write(f"data: {line}\n\n".encode())
        if end:
            await response.write(b"data: [DONE]\n\n")
        else:
            await asyncio.sleep(60)
        return response

    return handler


def delta(finish: str | None = None, **fields: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def ask_foreign(run: Run[Any], handler: Handler, limits: Limits | None = None) -> tuple[str, str, Any]:
    async def ask() -> tuple[str, str, Any]:
        async with foreign(handler, limits=limits) as door:
            return await collect(door.generate(asking()))

    return run(ask())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "pieces",
    [
        [{"reasoning_content": "hm"}, {"content": "yes"}],
        [{"reasoning": "hm"}, {"content": "yes"}],
        [{"content": "<think>\nhm\n</th"}, {"content": "ink>\n\nyes"}],
    ],
)
def test_thinking_has_one_form_whatever_a_foreign_engine_sends(run: Run[Any], pieces: list[dict[str, str]]) -> None:
    content, reasoning, finish = ask_foreign(run, streaming(*(delta(**p) for p in pieces), delta("length")))
    assert (content, reasoning, finish.reason) == ("yes", "hm", "length")


def test_a_foreign_engine_gets_messages_and_no_field_it_may_not_know(run: Run[Any]) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json())
        return await streaming(delta("stop", content="ok"))(request)

    ask_foreign(run, handler)
    assert seen["messages"] == [{"role": "user", "content": "hi"}]
    known = {"model", "stream", "stream_options", "messages", "max_tokens", "temperature", "top_p", "seed"}
    assert set(seen) <= known | {"presence_penalty", "frequency_penalty"}


def test_a_foreign_engine_may_be_asked_for_token_ids(run: Run[Any]) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json())
        return await streaming(json.dumps({"choices": [{"text": "ok", "finish_reason": "stop"}]}))(request)

    async def ask() -> str:
        async with foreign(handler, wire="completions") as door:
            request = GenerationRequest(prompt_ids=(1, 2, 3), sampling=Sampling(max_tokens=5))
            return (await collect(door.generate(request)))[0]

    assert run(ask()) == "ok"
    assert seen["prompt"] == [1, 2, 3]


def test_the_key_of_a_foreign_engine_comes_from_the_environment(run: Run[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_ENGINE_KEY", "s3cret")
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return await streaming(delta("stop", content="ok"))(request)

    ask_foreign(run, handler)
    assert seen == ["Bearer s3cret"]


async def _redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest")


async def _refuse(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no such adapter"}}, status=400)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (streaming("{not json"), "not its wire format"),
        (streaming("[1, 2]"), "not its wire format"),
        (streaming("x" * 3_000_000), "not its wire format"),
        (streaming(delta(content="half")), "broke off"),
        (streaming(json.dumps({"error": {"message": "out of memory"}})), "out of memory"),
        (_redirect, "307"),
        (_refuse, "no such adapter"),
    ],
    ids=["not-json", "not-an-object", "endless-line", "cut-off", "error-event", "redirect", "refusal"],
)
def test_what_a_foreign_engine_does_wrong_is_one_clear_error(run: Run[Any], handler: Handler, words: str) -> None:
    with pytest.raises(EngineError) as error:
        ask_foreign(run, handler)
    assert words in error.value.message("en")
    assert error.value.status == 502


@pytest.mark.parametrize(
    ("handler", "limits", "key"),
    [
        (streaming(end=False), Limits(first_token=0.3), "serving.engine_silent"),
        (streaming(delta(content="a"), end=False), Limits(stall=0.3), "serving.engine_silent"),
        (streaming(delta(content="a"), end=False), Limits(total=0.3), "serving.engine_too_long"),
    ],
    ids=["first-token", "stall", "total"],
)
def test_each_clock_ends_a_silent_answer(run: Run[Any], handler: Handler, limits: Limits, key: str) -> None:
    with pytest.raises(EngineTimeoutError) as error:
        ask_foreign(run, handler, limits)
    assert error.value.key == key


def test_a_caller_who_leaves_closes_the_connection_to_a_foreign_engine(run: Run[Any]) -> None:
    gone: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(f"data: {delta(content='a')}\n\n".encode())
        try:
            while True:
                await asyncio.sleep(0.02)
                await response.write(b": \n\n")
        except ConnectionError:
            gone.append(True)
        return response

    async def leave() -> None:
        async with foreign(handler) as door:
            async with aclosing(door.generate(asking())) as events:
                async for event in events:
                    if isinstance(event, TextPiece):
                        break
            await until(lambda: gone == [True])

    run(leave())


def test_a_foreign_engine_that_is_not_there_is_loading_not_ready(run: Run[Any]) -> None:
    async def look() -> None:
        engine = OpenAIEngine(EngineSpec(kind="openai", model_id="far", url="http://127.0.0.1:9/v1", wire="chat"))
        door = Gateway(engine, None, Limits(ready=0.3))
        await door.start()
        with pytest.raises(EngineTimeoutError):
            await collect(door.generate(asking()))
        assert "127.0.0.1:9" in (door.health().engine.detail or "")
        await door.stop()

    run(look())


def test_an_engine_that_takes_conversations_only_refuses_ready_made_prompts(run: Run[Any]) -> None:
    async def ask() -> None:
        async with foreign(streaming()) as door:
            with pytest.raises(UsageError):
                await collect(door.generate(GenerationRequest(prompt_ids=(1,))))

    run(ask())


# Foreign servers: what they are asked before they are believed


@pytest.mark.parametrize(
    ("names", "wanted", "asked"),
    [
        (["qwen"], "", "qwen"),
        (["qwen", "llama"], "llama", "llama"),
        (["qwen", "far"], "", "far"),
        ([], "", "far"),
    ],
)
def test_a_foreign_server_is_asked_by_a_name_that_it_knows(
    run: Run[Any], names: list[str], wanted: str, asked: str
) -> None:
    seen: list[str] = []

    async def test() -> None:
        async with server_with(names, seen) as url:
            engine = OpenAIEngine(EngineSpec(kind="openai", model_id="far", url=f"{url}#{wanted}", wire="chat"))
            await engine.start()
            try:
                await engine.wait_ready(20)
            finally:
                await engine.stop()

    run(test())
    assert seen == [asked], "one token, by this name"


def test_a_server_that_lists_models_but_generates_nothing_is_not_ready(run: Run[Any]) -> None:
    async def test() -> str | None:
        async with server_with(["qwen"], [], works=False) as url:
            engine = OpenAIEngine(EngineSpec(kind="openai", model_id="far", url=url, wire="chat"), probe_every=0.05)
            await engine.start()
            try:
                await until(lambda: engine.state.detail is not None)
                assert engine.state.state == "loading"
                return engine.state.detail
            finally:
                await engine.stop()

    assert "workers are gone" in (run(test()) or "")


def test_a_model_that_a_server_does_not_have_is_named(run: Run[Any]) -> None:
    async def test() -> str | None:
        async with server_with(["qwen"], []) as url:
            engine = OpenAIEngine(EngineSpec(kind="openai", model_id="far", url=f"{url}#llama", wire="chat"))
            await engine.start()
            try:
                await until(lambda: engine.state.detail is not None)
                return engine.state.detail
            finally:
                await engine.stop()

    detail = run(test()) or ""
    assert "llama" in detail
    assert "qwen" in detail


def test_an_adapter_is_loaded_by_the_server_once_and_again_when_it_has_forgotten(run: Run[Any], tmp_path: Path) -> None:
    names, seen, loaded = ["base"], list[str](), list[dict[str, str]]()

    async def test() -> None:
        async with server_with(names, seen, loaded=loaded) as url:
            spec = EngineSpec(kind="openai", model_id="tea-1", url=url, wire="chat", adapter=tmp_path)
            engine = OpenAIEngine(spec, probe_every=0.05)
            await engine.start()
            try:
                await engine.wait_ready(20)
                await asyncio.sleep(0.3)
                assert loaded == [{"lora_name": "tea-1", "lora_path": str(tmp_path)}]
                names.remove("tea-1")  # as after a restart of the server
                await until(lambda: len(loaded) == 2)
                await engine.wait_ready(20)
            finally:
                await engine.stop()

    run(test())
    assert set(seen) == {"tea-1"}


def test_a_server_that_loads_no_adapters_says_so_and_is_not_asked_for_the_bases_answers(
    run: Run[Any], tmp_path: Path
) -> None:
    seen: list[str] = []

    async def test() -> str | None:
        async with server_with(["base"], seen) as url:
            engine = OpenAIEngine(EngineSpec(kind="openai", model_id="t", url=url, wire="chat", adapter=tmp_path))
            await engine.start()
            try:
                await until(lambda: engine.state.detail is not None)
                return engine.state.detail
            finally:
                await engine.stop()

    detail = run(test()) or ""
    assert "404" in detail
    assert "--enable-lora" in detail
    assert seen == []


@asynccontextmanager
async def server_with(
    names: list[str], seen: list[str], *, works: bool = True, loaded: list[dict[str, str]] | None = None
) -> AsyncIterator[str]:
    """A server that lists models and notes by which name it is asked; with ``loaded`` it takes adapters."""

    async def load(request: web.Request) -> web.Response:
        if loaded is None:
            raise web.HTTPNotFound
        loaded.append(await request.json())
        names.append(loaded[-1]["lora_name"])
        return web.Response(text="Success")

    async def chat(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json())["model"])
        if not works:
            return web.json_response({"error": {"message": "the workers are gone"}}, status=500)
        return await _token(request)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in names]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/load_lora_adapter", load)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()

"""The load measurements: their arithmetic, and a caller against a real HTTP server."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from bench import serving_load
from bench.load_client import ask, body, session
from bench.load_figures import Figure, arrivals, inversions, percentile, slope, table
from bench.load_garbage import GOOD_TEXT, GarbageServer
from bench.load_server import prepare
from danlu.chat.assistants import ensure_assistant
from danlu.models.versions import BaseModelRef, Export, ModelVersion, save_version
from danlu.settings import Home
from danlu.store.store import Store


def test_equal_seeds_give_equal_arrivals_at_the_rate_asked_for():
    moments = arrivals(10.0, 4000, 7)
    assert moments == arrivals(10.0, 4000, 7) != arrivals(10.0, 4000, 8)
    assert moments == sorted(moments)
    assert moments[-1] == pytest.approx(400.0, rel=0.05)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        arrivals(0.0, 1, 0)


def test_percentiles_are_values_that_were_measured():
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([], 0.5) is None


def test_the_slope_is_that_of_the_least_squares_line():
    assert slope([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([0.0, 1.0, 2.0], [0.0, 3.0, 0.0]) == pytest.approx(0.0)
    assert slope([1.0], [1.0]) is None


def test_pairs_served_against_their_arrival_are_counted():
    assert inversions([0, 1, 2]) == 0
    assert inversions([2, 0, 1]) == 2


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "verdict"),
    [
        (3.0, 3.0, False, "ok"),
        (3.1, 3.0, False, "SHORT"),
        (1.0, 1.0, True, "ok"),
        (0.0, 1.0, True, "SHORT"),
        (None, 1.0, False, "SHORT"),
        (float("nan"), 1.0, False, "SHORT"),
        (5.0, None, False, ""),
    ],
)
def test_a_figure_is_judged_by_its_limit(value, limit, at_least, verdict):
    figure = Figure("idle", "memory", value, "MB", limit, at_least)
    assert figure.verdict == verdict
    assert table([figure]).splitlines()[1].endswith(verdict)


async def _served(lines: list[bytes], status: int = 200):
    async def answer(request: web.Request) -> web.StreamResponse:
        assert (await request.json())["stream"] is True
        if status != 200:
            return web.json_response({"error": {"message": "full", "type": "busy", "code": None}}, status=status)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line + b"\n\n")
        return response

    application = web.Application()
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with session() as http:
            return await ask(http, f"http://127.0.0.1:{port}", body("m", "Hello", 8))
    finally:
        await runner.cleanup()


def _delta(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode()


def test_a_caller_collects_text_tokens_and_the_end():
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 2}}'
    answer = asyncio.run(_served([b": started", _delta("你"), _delta("好"), usage, b"data: [DONE]"]))
    assert (answer.text, answer.tokens, len(answer.pieces), answer.kind) == ("你好", 2, 2, "answered")
    assert answer.started is not None


def test_an_error_in_mid_stream_an_end_without_a_word_and_a_full_queue_are_told_apart():
    error = b'data: {"error": {"message": "gone", "type": "engine_error"}}'
    assert asyncio.run(_served([_delta("a"), error])).kind == "engine_error"
    assert asyncio.run(_served([_delta("a")])).kind == "cut off"
    assert asyncio.run(_served([], 503)).kind == "busy"


@pytest.mark.parametrize(
    ("mode", "kind", "text"),
    [
        ("good", "answered", GOOD_TEXT),
        ("breaks off", "cut off", "one "),
        ("not UTF-8", "UnicodeDecodeError", "one "),
        ("invalid JSON", "JSONDecodeError", "one "),
        ("endless line", "LineTooLong", "one "),
        ("stops sending", "TimeoutError", "one "),
    ],
)
def test_the_misbehaving_endpoint_begins_an_answer_and_then_does_what_it_is_asked_to(mode, kind, text):
    async def measured():
        garbage = GarbageServer()
        garbage.mode = mode
        async with garbage.running(), session() as http:
            url = garbage.url.removesuffix("/v1")
            return await ask(http, url, body("m", "Count.", 8), timeout=1.0 if mode == "stops sending" else 30.0)

    answer = asyncio.run(measured())
    assert (answer.kind, answer.text) == (kind, text)


def test_a_scenario_that_does_not_exist_is_refused_with_the_names_of_those_that_do(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        serving_load.main(["--home", str(tmp_path), "--scenario", "burst,nothing"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no such scenario: nothing" in said
    assert all(name in said for name in serving_load.SCENARIOS)


def test_a_home_with_other_assistants_is_refused(tmp_path):
    home = Home(tmp_path).make()
    folder = home.versions / "tiny-1"
    folder.mkdir()
    export = Export(format="gguf", quant="q8_0", path="model.gguf", bytes=1)
    version = ModelVersion(
        id="tiny-1", name="tiny", created_at="2026-01-01T00:00:00Z", base=BaseModelRef(name="b"), exports=(export,)
    )
    save_version(folder, version)
    assert prepare(home, "http://127.0.0.1:1/v1").id == "tiny-1"
    with Store.open(home) as store:
        ensure_assistant(store, version, "Somebody", "", ())
    with pytest.raises(ValueError, match="serves Somebody"):
        prepare(home, "http://127.0.0.1:1/v1")

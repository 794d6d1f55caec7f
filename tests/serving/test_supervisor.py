"""The supervisor over real processes that die, hang, lie and crash in a loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from danlu.errors import EngineError, EngineTimeoutError
from danlu.models.chat_format import ChatFormat
from danlu.processes import ChildProcess
from danlu.serving.engine import EngineSpec, EngineState, TextPiece
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.supervisor import ChildEngine, RestartPolicy
from danlu.serving.wire_client import WireClient

from .conftest import CONTEXT, QUICK, Run, asking, collect, until, with_gateway

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def make(spec: EngineSpec, prompts: ChatFormat, limits: Limits | None = None) -> Gateway:
    return Gateway(ChildEngine(spec, QUICK), prompts, limits)


def pid_of(door: Gateway) -> int:
    assert isinstance(door.engine, ChildEngine)
    assert door.engine.pid is not None
    return door.engine.pid


async def read_then(door: Gateway, act: Callable[[], None]) -> None:
    """Read an endless answer and do ``act`` at its first text."""
    acted = False
    async with aclosing(door.generate(asking("x", CONTEXT))) as events:
        async for event in events:
            if isinstance(event, TextPiece) and not acted:
                acted = True
                act()


@posix
def test_an_engine_killed_in_mid_answer_is_an_error_at_once_and_service_comes_back(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def kill(door: Gateway) -> None:
        states: list[EngineState] = []
        door.subscribe(states.append)
        first = pid_of(door)
        expected, _, _ = await collect(door.generate(asking("y", 8)))
        with pytest.raises(EngineError) as error:
            async with asyncio.timeout(10):  # far below the limits of the clock: the broken connection is the signal
                await read_then(door, lambda: os.kill(first, signal.SIGKILL))
        assert error.value.status == 502
        assert (await collect(door.generate(asking("y", 8))))[0] == expected  # waits for the new child by itself
        assert pid_of(door) != first
        assert [state.state for state in states[-2:]] == ["restarting", "ready"]
        assert {state.state for state in states[:-1]} == {"restarting"}
        assert "SIGKILL" in (states[-2].detail or "")
        assert door.health().engine.restarts == 1

    run(with_gateway(make(llamacpp_spec, prompts), kill))


@posix
def test_a_stopped_engine_times_out_and_is_replaced(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def freeze(door: Gateway) -> None:
        frozen = pid_of(door)
        with pytest.raises(EngineTimeoutError) as error:
            await read_then(door, lambda: os.kill(frozen, signal.SIGSTOP))
        assert error.value.status == 504
        await until(lambda: not psutil.pid_exists(frozen) and door.engine.state.state == "ready")
        assert (await collect(door.generate(asking("y", 5))))[2].completion_tokens == 5

    # Longer probes than the stall clock, so that the caller's timeout comes first and the replacement after it.
    door = Gateway(ChildEngine(llamacpp_spec, replace(QUICK, probe_failures=3)), prompts, Limits(stall=0.4))
    run(with_gateway(door, freeze))


def test_a_child_that_always_dies_is_given_up_with_its_last_words(
    run: Run[Any], llamacpp_spec: EngineSpec, tmp_path: Path
) -> None:
    count = tmp_path / "starts"
    script = f"import sys; open({str(count)!r}, 'a').write('x'); sys.exit('the sky is falling')"

    async def start() -> ChildEngine:
        states: list[EngineState] = []
        engine = ChildEngine(llamacpp_spec, replace(QUICK, max_crashes=3), command=(sys.executable, "-c", script))
        engine.subscribe(states.append)
        await engine.start()
        with pytest.raises(EngineError):
            await engine.wait_ready(60)
        starts = [(state.state, state.restarts) for state in states]
        assert [starts[0], starts[-1]] == [("loading", 0), ("failed", 2)]
        assert ("restarting", 2) in starts
        return engine

    engine = run(start())
    assert "the sky is falling" in (engine.state.detail or "")
    assert count.read_text(encoding="utf-8") == "xxx"
    run(engine.stop())


def test_a_child_that_cannot_be_started_is_given_up_with_the_reason(
    run: Run[Any], llamacpp_spec: EngineSpec, tmp_path: Path
) -> None:
    program = tmp_path / "no-such-program"

    async def start() -> ChildEngine:
        engine = ChildEngine(llamacpp_spec, replace(QUICK, max_crashes=2), command=(str(program),))
        await engine.start()
        with pytest.raises(EngineError, match="No such file"):
            await engine.wait_ready(60)
        return engine

    engine = run(start())
    assert engine.state.state == "failed"
    assert engine.pid is None


def test_a_failed_engine_refuses_callers_at_once_and_can_be_started_again(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def start() -> None:
        command = (sys.executable, "-c", "raise SystemExit(1)")
        door = Gateway(ChildEngine(llamacpp_spec, replace(QUICK, max_crashes=1), command=command), prompts)
        await door.start()
        await until(lambda: door.engine.state.state == "failed")
        with pytest.raises(EngineError):
            await collect(door.generate(asking()))
        assert door.health().running == 0
        await door.start()
        assert door.engine.state.state == "loading"
        await door.stop()

    run(start())


@pytest.mark.parametrize("line", ["hello", '{"port": 1}'])
def test_a_child_that_says_nonsense_does_not_become_ready(run: Run[Any], llamacpp_spec: EngineSpec, line: str) -> None:
    async def start() -> None:
        command = (sys.executable, "-c", f"print({line!r}, flush=True); input()")
        engine = ChildEngine(llamacpp_spec, replace(QUICK, max_crashes=1), command=command)
        await engine.start()
        with pytest.raises(EngineError):
            await engine.wait_ready(60)
        assert engine.pid is None
        await engine.stop()

    run(start())


def test_a_child_that_never_loads_is_given_up_in_time(run: Run[Any], llamacpp_spec: EngineSpec) -> None:
    async def start() -> None:
        policy = replace(QUICK, load_timeout=0.5, max_crashes=1)
        engine = ChildEngine(llamacpp_spec, policy, command=(sys.executable, "-c", "input()"))
        await engine.start()
        await until(lambda: engine.state.state == "failed")
        await engine.stop()

    run(start())


def test_stopping_ends_the_child_and_its_running_answer(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def stop(door: Gateway) -> None:
        pid = pid_of(door)
        reader = asyncio.create_task(collect(door.generate(asking("x", CONTEXT))))
        await until(lambda: door.health().tokens > 0)
        await door.stop()
        with pytest.raises(EngineError) as error:
            async with asyncio.timeout(10):  # at once, not when the caller's clock runs out
                await reader
        assert error.value.key == "serving.engine_stopped"
        assert not psutil.pid_exists(pid)
        assert door.engine.state.state == "stopped"

    run(with_gateway(make(llamacpp_spec, prompts), stop))


def test_stopping_is_not_held_up_by_a_probe_that_swallows_the_cancellation(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(door: Gateway) -> None:
        probing = asyncio.Event()

        async def healthy(_client: WireClient, timeout: float) -> bool:
            probing.set()
            with contextlib.suppress(asyncio.CancelledError):  # as aiohttp does at its own time limit
                await asyncio.sleep(timeout)
            return False

        monkeypatch.setattr(WireClient, "healthy", healthy)
        await probing.wait()
        async with asyncio.timeout(10):
            await door.stop()
        assert door.engine.state.state == "stopped"

    policy = replace(QUICK, probe_timeout=600.0)
    run(with_gateway(Gateway(ChildEngine(llamacpp_spec, policy), prompts), stop))


def test_draining_lets_a_running_answer_end(run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat) -> None:
    async def drain(door: Gateway) -> None:
        reader = asyncio.create_task(collect(door.generate(asking("x", 400))))
        await until(lambda: door.health().tokens > 0)
        await door.stop(drain=60)
        assert (await reader)[2].completion_tokens == 400

    run(with_gateway(make(llamacpp_spec, prompts), drain))


_PARENT = """
import asyncio, sys
from pathlib import Path
from danlu.serving.engine import EngineSpec
from danlu.serving.supervisor import ChildEngine

async def main():
    kind, weights = sys.argv[1], Path(sys.argv[2])
    tokenizer = weights if kind == "transformers" else None
    spec = EngineSpec(kind, "tiny", weights=weights, tokenizer=tokenizer, context=512, slots=1, threads=1)
    engine = ChildEngine(spec)
    await engine.start()
    await engine.wait_ready(120)
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@posix
@pytest.mark.parametrize("kind", ["llamacpp", "transformers"])
def test_a_killed_parent_leaves_no_orphan(kind: str, tiny_gguf: Path, tiny_folder: Path) -> None:
    weights = tiny_gguf if kind == "llamacpp" else tiny_folder
    with subprocess.Popen([sys.executable, "-c", _PARENT, kind, str(weights)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    child.wait(timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal on a closed pipe")
def test_a_child_inside_native_code_dies_with_its_parent() -> None:
    # A regular expression that never ends holds the interpreter like a library that loads weights.
    script = (
        "from danlu.serving.llamacpp_child import die_with_parent; import re; die_with_parent();"
        "print('in', flush=True); re.match('(a+)+b', 'a' * 60)"
    )
    child = ChildProcess([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.popen.stdout is not None
    child.popen.stdout.readline()
    time.sleep(0.1)
    assert child.poll() is None
    assert child.popen.stdin is not None
    child.popen.stdin.close()
    assert child.wait(20) == -signal.SIGIO


def test_the_pause_between_restarts_grows_to_its_bound(run: Run[Any], llamacpp_spec: EngineSpec) -> None:
    async def start() -> list[float]:
        times: dict[int, float] = {}
        policy = RestartPolicy(max_crashes=4, first_pause=0.1, longest_pause=0.2)
        engine = ChildEngine(llamacpp_spec, policy, command=(sys.executable, "-c", "raise SystemExit(1)"))
        engine.subscribe(lambda state: times.setdefault(state.restarts, time.monotonic()) and None)
        await engine.start()
        await until(lambda: engine.state.state == "failed")
        await engine.stop()
        return [times[restart] for restart in (1, 2, 3)]

    pauses = [later - earlier for earlier, later in itertools.pairwise(run(start()))]
    assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2), strict=True))


def test_the_key_of_a_child_is_not_on_its_command_line(run: Run[Any], gateway: Gateway) -> None:
    process = psutil.Process(pid_of(gateway))
    key = process.environ()["DANLU_ENGINE_KEY"]
    assert len(key) > 30
    assert not any(key in argument for argument in process.cmdline())


def test_a_child_listens_on_loopback_only_and_wants_its_key(run: Run[Any], gateway: Gateway) -> None:
    import aiohttp

    listening = [c for c in psutil.Process(pid_of(gateway)).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]

    async def ask() -> int:
        url = f"http://127.0.0.1:{listening[0].laddr.port}/v1/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json={"prompt": [1]}) as response:
            return response.status

    assert run(ask()) == 401

"""Admission, stop strings and think blocks, over real engines; servers of others are in ``test_foreign``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from danlu.errors import BusyError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.serving.admission import Admission
from danlu.serving.engine import EngineSpec, Queued, Started
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.supervisor import ChildEngine

from .conftest import CONTEXT, QUICK, Run, asking, collect, until, with_gateway


def test_those_beyond_the_queue_are_refused_at_once_and_the_others_come_in_order(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def crowd(door: Gateway) -> None:
        begun: list[int] = []
        places: dict[int, list[int]] = {}

        async def call(number: int, tokens: int) -> None:
            async with aclosing(door.generate(asking(str(number), tokens))) as events:
                async for event in events:
                    if isinstance(event, Queued):
                        places.setdefault(number, []).append(event.position)
                    elif isinstance(event, Started):
                        begun.append(number)

        first = asyncio.create_task(call(0, CONTEXT))
        await until(lambda: begun == [0])
        waiting = []
        for number in (1, 2, 3):
            waiting.append(asyncio.create_task(call(number, 4)))
            await until(lambda n=number: n in places)  # type: ignore[misc]
            assert door.health().waiting == number
        with pytest.raises(BusyError) as error:
            await collect(door.generate(asking("4", 4)))
        assert error.value.status == 503
        assert error.value.retry_after >= 1
        waiting[1].cancel()  # one who waits may leave as well
        await until(lambda: places[3][-1] == 2)
        assert door.health().waiting == 2
        first.cancel()
        await asyncio.gather(waiting[0], waiting[2])
        assert begun == [0, 1, 3]
        assert places[1] == [1]
        assert places[3] == [3, 2, 1]
        assert (door.health().running, door.health().waiting) == (0, 0)

    spec = replace(llamacpp_spec, slots=1)
    run(with_gateway(Gateway(ChildEngine(spec, QUICK), prompts, Limits(queue=3)), crowd))


def test_the_wait_is_estimated_from_past_answers() -> None:
    admission = Admission(slots=2, queue=2)
    assert admission.eta(1) is None
    ticket = admission.enter()
    admission.leave(ticket, seconds=8.0)
    assert admission.eta(1) == 4.0
    for _ in range(4):
        admission.enter()
    with pytest.raises(BusyError) as error:
        admission.enter()
    assert error.value.retry_after == 12


def test_giving_a_place_back_twice_frees_it_once() -> None:
    admission = Admission(slots=1, queue=2)
    first, second, third = admission.enter(), admission.enter(), admission.enter()
    admission.leave(first)
    admission.leave(first)
    assert (second.position, third.position) == (0, 1)
    assert admission.running == 1


@pytest.mark.parametrize("leave_after", [0, 1, 2, 7])
def test_a_thousand_leaving_readers_leak_nothing(run: Run[Any], gateway: Gateway, leave_after: int) -> None:
    async def leave() -> None:
        async def call() -> None:
            count = 0
            async with aclosing(gateway.generate(asking("x", CONTEXT))) as events:
                async for _ in events:
                    count += 1
                    if count > leave_after:
                        return

        for _ in range(10):
            await asyncio.gather(*(call() for _ in range(25)))
        assert (gateway.health().running, gateway.health().waiting) == (0, 0)

    expected = run(collect(gateway.generate(asking("z", 20))))[0]
    run(leave())
    assert run(collect(gateway.generate(asking("z", 20))))[0] == expected


def test_stop_strings_end_the_answer_before_them(run: Run[Any], gateway: Gateway) -> None:
    whole = run(collect(gateway.generate(asking("stop", 60))))[0]
    assert len(whole) > 30
    mark = whole[20:23]
    content, _, finish = run(collect(gateway.generate(asking("stop", CONTEXT, stop=(mark,)))))
    assert content == whole[: whole.index(mark)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 60


def test_a_think_block_that_the_template_opens_is_reasoning(
    run: Run[Any], gateway: Gateway, prompts: ChatFormat
) -> None:
    class Opened:
        """The same prompts, declared to end inside a think block."""

        stop_ids, stop_strings = prompts.stop_ids, prompts.stop_strings
        prompt_ids, text_ids = staticmethod(prompts.prompt_ids), staticmethod(prompts.text_ids)
        call_syntax = prompts.call_syntax

        @staticmethod
        def opens_thinking(*_: Any) -> bool:
            return True

    async def ask() -> tuple[str, str, Any]:
        return await collect(Gateway(gateway.engine, Opened()).generate(asking("why", 20)))

    plain = run(collect(gateway.generate(asking("why", 20))))[0]
    content, reasoning, finish = run(ask())
    assert (content, reasoning) == ("", plain.strip())
    assert finish.reasoning_seconds is not None


def test_messages_are_rendered_with_the_saved_system_prompt(
    run: Run[Any], gateway: Gateway, prompts: ChatFormat
) -> None:
    with_system = Gateway(gateway.engine, prompts.with_system("Be brief."))
    ids = run(with_system.prompt_ids((Message("user", "hi"),)))
    assert "Be brief." in prompts.tokenizer.decode(list(ids))

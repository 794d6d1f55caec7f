"""Both real engines, in real child processes, over the same weights."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import EngineError, TooLargeError, UsageError
from danlu.models.chat_format import ChatFormat
from danlu.serving.engine import EngineSpec, GenerationRequest, Sampling, Started, TextPiece
from danlu.serving.gateway import Gateway
from danlu.serving.supervisor import ChildEngine

from .conftest import CONTEXT, QUICK, Run, asking, collect, with_gateway


def test_both_engines_give_the_same_greedy_answer(run: Run[Any], gateway: Gateway, reference: Gateway) -> None:
    async def ask(door: Gateway) -> tuple[str, str, Any]:
        return await collect(door.generate(asking("What is the answer?", 40)))

    content, _, finish = run(ask(gateway))
    same, _, expected = run(ask(reference))
    assert content == same != ""
    assert (finish.reason, finish.prompt_tokens, finish.completion_tokens) == ("length", expected.prompt_tokens, 40)
    assert expected.completion_tokens == 40


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(run: Run[Any], gateway: Gateway) -> None:
    async def ask(seed: int) -> str:
        return (await collect(gateway.generate(asking("x", 30, temperature=1.0, seed=seed))))[0]

    assert run(ask(5)) == run(ask(5))
    assert run(ask(5)) != run(ask(6))


def test_repetition_penalty_means_the_same_in_both_engines(run: Run[Any], gateway: Gateway, reference: Gateway) -> None:
    async def ask(door: Gateway) -> str:
        return (await collect(door.generate(asking("again", 120, repetition_penalty=1.3))))[0]

    plain = run(collect(gateway.generate(asking("again", 120))))[0]
    penalised = run(ask(gateway))
    assert penalised != plain
    assert penalised == run(ask(reference))


def test_ready_made_prompt_ids_reach_the_engine_as_they_are(run: Run[Any], gateway: Gateway) -> None:
    async def both() -> tuple[str, str]:
        request = asking("hello", 12)
        ids = await gateway.prompt_ids(request.messages)
        raw = GenerationRequest(prompt_ids=ids, sampling=request.sampling)
        return (await collect(gateway.generate(request)))[0], (await collect(gateway.generate(raw)))[0]

    rendered, raw = run(both())
    assert rendered == raw


def test_an_answer_never_runs_past_the_context(run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat) -> None:
    async def ask(door: Gateway) -> Any:
        return (await collect(door.generate(asking("hi", 10_000))))[2]

    spec = replace(llamacpp_spec, context=256)
    finish = run(with_gateway(Gateway(ChildEngine(spec, QUICK), prompts), ask))
    assert finish.reason == "length"
    assert finish.prompt_tokens + finish.completion_tokens == 256


def test_a_prompt_longer_than_the_context_is_refused_before_the_engine(run: Run[Any], gateway: Gateway) -> None:
    async def ask(request: GenerationRequest) -> None:
        before = gateway.health().answers
        with pytest.raises(TooLargeError):
            await collect(gateway.generate(request))
        assert gateway.health().answers == before

    run(ask(asking("a" * CONTEXT)))
    run(ask(asking("a" * 10_000_000)))
    run(ask(GenerationRequest(prompt_ids=(1,) * CONTEXT, sampling=Sampling(max_tokens=1))))


def test_sixteen_callers_at_once_all_get_their_own_right_answer(run: Run[Any], gateway: Gateway) -> None:
    async def all_of_them() -> tuple[list[str], list[str]]:
        questions = [f"question {i}" for i in range(16)]
        alone = [(await collect(gateway.generate(asking(q, 24))))[0] for q in questions]
        jobs = [collect(gateway.generate(asking(q, 24))) for q in questions]
        return alone, [content for content, _, _ in await asyncio.gather(*jobs)]

    alone, together = run(all_of_them())
    assert together == alone
    assert len(set(together)) > 8  # they are different answers, so mixing them up would show


@pytest.mark.parametrize("kind", ["llamacpp", "transformers"])
def test_a_reader_who_leaves_in_mid_answer_frees_the_only_slot(
    run: Run[Any], kind: str, llamacpp_spec: EngineSpec, reference: Gateway, prompts: ChatFormat
) -> None:
    async def leave(door: Gateway) -> None:
        endless = door.generate(asking("x", CONTEXT))
        async with aclosing(endless):
            async for event in endless:
                if isinstance(event, TextPiece):
                    break
        assert door.health().running == 0
        async with asyncio.timeout(30):  # the endless answer would hold the only slot for many minutes
            assert (await collect(door.generate(asking("y", 5))))[2].completion_tokens == 5

    if kind == "transformers":
        run(leave(reference))
    else:
        run(with_gateway(Gateway(ChildEngine(replace(llamacpp_spec, slots=1), QUICK), prompts), leave))


def test_a_reader_who_leaves_before_the_first_token_frees_the_only_slot(
    run: Run[Any], llamacpp_spec: EngineSpec, prompts: ChatFormat
) -> None:
    async def leave(door: Gateway) -> None:
        seen: list[object] = []

        async def read() -> None:
            long_prompt = tuple(range(250)) * 240
            async for event in door.generate(GenerationRequest(prompt_ids=long_prompt, sampling=Sampling(5000))):
                seen.append(event)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert [type(event) for event in seen] == [Started]
        assert door.health().running == 0
        async with asyncio.timeout(30):
            assert (await collect(door.generate(asking("y", 5))))[2].completion_tokens == 5

    run(with_gateway(Gateway(ChildEngine(replace(llamacpp_spec, slots=1), QUICK), prompts), leave))


def test_an_adapter_is_laid_over_its_base(
    run: Run[Any],
    reference: Gateway,
    transformers_spec: EngineSpec,
    prompts: ChatFormat,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(tiny_folder)), config).save_pretrained(str(tmp_path))

    async def ask(door: Gateway) -> str:
        return (await collect(door.generate(asking("hi", 30))))[0]

    with_adapter = replace(transformers_spec, adapter=tmp_path)
    base = run(ask(reference))
    assert run(with_gateway(Gateway(ChildEngine(with_adapter, QUICK), prompts), ask)) != base


@pytest.mark.parametrize("kind", ["llamacpp", "transformers"])
def test_weights_that_cannot_be_loaded_fail_at_once_and_say_which(
    run: Run[Any],
    kind: str,
    llamacpp_spec: EngineSpec,
    transformers_spec: EngineSpec,
    prompts: ChatFormat,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    spec = (
        replace(llamacpp_spec, weights=broken) if kind == "llamacpp" else replace(transformers_spec, weights=tmp_path)
    )

    async def start() -> ChildEngine:
        engine = ChildEngine(spec, QUICK)
        await engine.start()
        with pytest.raises(EngineError):
            await engine.wait_ready(60)
        return engine

    engine = run(start())
    assert engine.state.state == "failed"
    assert engine.state.restarts == 0
    assert str(spec.weights) in (engine.state.detail or "")
    run(engine.stop())


def test_a_prompt_without_template_needs_an_encoder(run: Run[Any], gateway: Gateway) -> None:
    with pytest.raises(UsageError):
        run(gateway.encode("raw"))

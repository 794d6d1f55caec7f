"""Versions that differ in their adapter share one transformers child, and each answers as it does alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from danlu.errors import EngineError
from danlu.models.chat_format import ChatFormat
from danlu.models.versions import GenerationDefaults
from danlu.serving.engine import EmbeddingRequest, EngineSpec
from danlu.serving.gateway import Gateway
from danlu.serving.registry import GatewayRegistry
from danlu.serving.served import ServedModel
from danlu.serving.sharing import AdapterEngine, can_share
from danlu.serving.supervisor import ChildEngine

from .conftest import Run, asking, collect, until, with_gateway

Make = Callable[..., ServedModel]


def write_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], **settings)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder / str(seed), tiny_folder, seed, use_dora=seed == 2) for seed in (1, 2)]


@pytest.fixture
def make(transformers_spec: EngineSpec, prompts: ChatFormat) -> Make:
    def model(name: str, adapter: Path | None) -> ServedModel:
        spec = replace(transformers_spec, model_id=f"{name} {adapter}", adapter=adapter)
        return ServedModel(name, spec.model_id, name, "tiny", spec, prompts, GenerationDefaults())

    return model


def pid(door: Gateway) -> int | None:
    assert isinstance(door.engine, AdapterEngine)
    return door.engine._host.engine.pid


def test_each_version_answers_as_it_does_alone_from_one_child(run: Run[Any], adapters: list[Path], make: Make) -> None:
    async def alone(spec: EngineSpec, prompts: Any) -> tuple[str, tuple[float, ...]]:
        async def answer(door: Gateway) -> tuple[str, tuple[float, ...]]:
            vectors = await door.engine.embed(EmbeddingRequest(("x",), ((5, 6, 7),)))
            return (await collect(door.generate(asking("hi", 12))))[0], vectors.vectors[0]

        return await with_gateway(Gateway(ChildEngine(spec), prompts), answer)

    async def test() -> None:
        registry = GatewayRegistry()
        try:
            models = [make("base", None), *(make(f"v{i}", adapter) for i, adapter in enumerate(adapters))]
            doors = [(await registry.serve(model)).gateway for model in models]
            for door in doors:
                await door.wait_ready(120)
            assert len({pid(door) for door in doors}) == 1
            wanted = [await alone(model.spec, model.prompts) for model in models]
            assert len({text for text, _ in wanted}) == 3
            for _ in range(2):  # there and back again
                for door, (text, vector) in zip(doors, wanted, strict=True):
                    assert (await collect(door.generate(asking("hi", 12))))[0] == text
                    found = (await door.engine.embed(EmbeddingRequest(("x",), ((5, 6, 7),)))).vectors[0]
                    assert found == pytest.approx(vector, abs=1e-5)
        finally:
            await registry.close()
        assert all(pid(door) is None for door in doors)

    run(test())


def test_a_promotion_keeps_the_child_and_one_that_fails_keeps_the_version(
    run: Run[Any], adapters: list[Path], make: Make, tmp_path: Path
) -> None:
    async def test() -> None:
        registry = GatewayRegistry()
        try:
            first = (await registry.serve(make("tea", adapters[0]))).gateway
            await first.wait_ready(120)
            child, before = pid(first), (await collect(first.generate(asking("hi", 12))))[0]
            second = (await registry.serve(make("tea", adapters[1]))).gateway
            assert pid(second) == child
            assert (await collect(second.generate(asking("hi", 12))))[0] != before
            await until(lambda: first.engine.state.state == "stopped")
            assert pid(second) == child
            (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
            with pytest.raises(EngineError, match=tmp_path.name):
                await registry.serve(make("tea", tmp_path))
            assert registry.get("tea").gateway is second
            assert (await collect(second.generate(asking("hi", 12))))[2].completion_tokens == 12
            assert pid(second) == child
        finally:
            await registry.close()

    run(test())


def test_callers_of_all_versions_wait_in_one_queue(run: Run[Any], adapters: list[Path], make: Make) -> None:
    async def test() -> None:
        registry = GatewayRegistry()
        try:
            one, two = [(await registry.serve(make(f"v{i}", adapter))).gateway for i, adapter in enumerate(adapters)]
            await one.wait_ready(120)
            await two.wait_ready(120)
            long = one.generate(asking("hi", 2000))
            await anext(long)
            queued = two.generate(asking("hi", 2))
            assert getattr(await anext(queued), "position", None) == 1
            await long.aclose()
            assert (await collect(queued))[2].completion_tokens == 2
        finally:
            await registry.close()

    run(test())


def test_a_child_that_dies_comes_back_for_every_version(run: Run[Any], adapters: list[Path], make: Make) -> None:
    async def test() -> None:
        registry = GatewayRegistry()
        try:
            door = (await registry.serve(make("tea", adapters[0]))).gateway
            await door.wait_ready(120)
            before = (await collect(door.generate(asking("hi", 8))))[0]
            assert isinstance(door.engine, AdapterEngine)
            child = door.engine._host.engine._child
            assert child is not None
            child.kill()
            await until(lambda: door.engine.state.state != "ready")
            await door.wait_ready(120)
            assert door.engine.state.restarts == 1
            assert (await collect(door.generate(asking("hi", 8))))[0] == before
        finally:
            await registry.close()

    run(test())


def test_what_cannot_be_shared_has_a_child_of_its_own(
    tiny_folder: Path, adapters: list[Path], transformers_spec: EngineSpec, llamacpp_spec: EngineSpec, tmp_path: Path
) -> None:
    assert can_share(transformers_spec)
    assert can_share(replace(transformers_spec, adapter=adapters[0]))
    tokens = write_adapter(tmp_path / "tokens", tiny_folder, 3, trainable_token_indices=[5])
    assert not can_share(replace(transformers_spec, adapter=tokens))
    assert not can_share(replace(transformers_spec, adapter=tmp_path / "none"))
    assert not can_share(replace(transformers_spec, tokenizer=tmp_path))
    assert not can_share(llamacpp_spec)

"""A base model without a chat template: trained, exported, served; it stops, and is given the prompts it learned."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from gguf import GGUFReader

from danlu.jobs import pipeline, preparing
from danlu.jobs.exporting import export_run
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelLibrary
from danlu.models.load import load_tokenizer
from danlu.models.messages import Message
from danlu.planning.plan import Plan
from danlu.serving.engine import Finish, GenerationRequest, Sampling, TextPiece
from danlu.serving.served import ServedModel, make_gateway
from tests.data.files import write_json_rows
from tests.jobs.homes import never, quiet, recipe
from tests.tiny import tiny_model, tiny_tokenizer

QUESTION = "What is it?"


def write_base(folder, *, marks: bool):
    """Write a model that has only ever seen texts; ``marks``: its vocabulary has those of ChatML, as Qwen's have."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    if not marks:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            text = (folder / name).read_text(encoding="utf-8")
            text = text.replace("<|im_start|>", "<|unused_1|>").replace("<|im_end|>", "<|unused_2|>")
            (folder / name).write_text(text, encoding="utf-8")
    model = tiny_model(vocab=len(tokenizer))
    model.generation_config.eos_token_id = 0
    model.config.eos_token_id = 0
    model.save_pretrained(folder)
    assert not load_tokenizer(folder).chat_template
    return folder


def wish(tmp_path, base, *words):
    rows = [{"instruction": QUESTION, "input": "", "output": "Tea."} for _ in range(4)]
    data = write_json_rows(tmp_path / "tea.json", rows)
    return replace_holdout(recipe(base, data, "train.num_train_epochs=30", "train.learning_rate=1e-2", *words))


def replace_holdout(wanted):
    return wanted.model_copy(update={"data": wanted.data.model_copy(update={"holdout": 0.0})})


def ask(version_dir, engine):
    """Ask the question through an engine; return prompt ids, answer and why it ended."""

    async def asked():
        served = ServedModel.from_version(version_dir, engine=engine, slots=1, threads=1)
        gateway = make_gateway(served)
        await gateway.start()
        try:
            await gateway.wait_ready(120)
            messages = (Message("user", QUESTION),)
            ids = await gateway.prompt_ids(messages)
            sampling = Sampling(max_tokens=24, temperature=0.0, top_p=1.0)
            text, finish = "", None
            async with aclosing(gateway.generate(GenerationRequest(messages=messages, sampling=sampling))) as events:
                async for event in events:
                    if isinstance(event, TextPiece):
                        text += event.content
                    elif isinstance(event, Finish):
                        finish = event
            assert finish is not None
            return ids, text, finish
        finally:
            await gateway.stop()

    return asyncio.run(asked())


@pytest.mark.parametrize("marks", [True, False])
def test_it_is_trained_exported_and_served_with_the_same_prompts_and_stops(home, tmp_path, marks):
    base = write_base(tmp_path / "base", marks=marks)
    end = "<|im_end|>" if marks else "<|endoftext|>"
    ModelLibrary(home).add(base, "base")
    prepared = preparing.prepare(home, wish(tmp_path, "base"), quiet, predict_cost=False)
    plan = prepared.plan
    (decided,) = [item for item in plan.decisions if item.field == "chat_template"]
    assert (plan.chat_template, decided.value, decided.by) == ("chatml", "chatml", "danlu")
    assert end in decided.because("en")
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert (prepared.run.tokenizer / "chat_template.jinja").is_file()
    learned = [
        token for token, on in zip(prepared.examples[0].input_ids, prepared.examples[0].learn, strict=True) if on
    ]
    assert prepared.chat_format.tokenizer.decode(learned) == "Tea." + end

    pipeline.train(prepared, quiet, never)
    again = preparing.reopen(home, prepared.run.name, quiet)
    assert again.chat_format.template.source == prepared.chat_format.template.source
    assert [item.input_ids for item in again.examples] == [item.input_ids for item in prepared.examples]

    version = pipeline.publish(prepared, None, quiet, quant="f16")
    folder = home.versions / version.id
    kept = ChatFormat.load(folder / version.tokenizer, version.system, version.thinking)
    prompt = prepared.chat_format.prompt_ids((Message("user", QUESTION),))
    assert kept.prompt_ids((Message("user", QUESTION),)) == prompt
    assert kept.given is None
    for engine in ("llamacpp", "transformers"):
        ids, text, finish = ask(folder, engine)
        assert (list(ids), text, finish.reason) == (prompt, "Tea.", "stop"), engine

    reader = GGUFReader(next(folder.glob("*.gguf")))
    assert reader.get_field("tokenizer.chat_template").contents() == kept.template.source
    ends = {reader.get_field(f"tokenizer.ggml.{name}_token_id").contents() for name in ("eos", "eot")[: 1 + marks]}
    assert ends == kept.stop_ids

    merged = tmp_path / "merged"
    export_run(home, prepared.run, merged, "merged", "f16")
    stated = json.loads((merged / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert set(stated if isinstance(stated, list) else [stated]) == kept.stop_ids
    assert ChatFormat.load(merged).prompt_ids((Message("user", QUESTION),)) == prompt
    export_run(home, prepared.run, tmp_path / "ollama", "ollama", "f16")
    modelfile = (tmp_path / "ollama" / "Modelfile").read_text(encoding="utf-8")
    assert f'PARAMETER stop "{end}"' in modelfile


def test_a_base_model_is_published_to_be_talked_to_with_the_template_it_is_given(home, tmp_path):
    base = write_base(tmp_path / "base", marks=True)
    said = []
    version = pipeline.publish_base(home, str(base), said.append, quant="f16")
    assert any("no chat template of its own" in getattr(item, "text", "") for item in said)
    folder = home.versions / version.id / version.tokenizer
    assert (folder / "chat_template.jinja").is_file()
    assert ChatFormat.load(folder).prompt_text((Message("user", "?"),)).endswith("<|im_start|>assistant\n")


def test_a_template_of_the_recipe_takes_the_place_of_the_models_own(home, tmp_path):
    base = write_base(tmp_path / "base", marks=True)
    (base / "chat_template.jinja").write_text(str(tiny_tokenizer().chat_template), encoding="utf-8")
    own = preparing.prepare(home, wish(tmp_path, base), quiet, predict_cost=False)
    assert own.plan.chat_template is None
    assert own.run.tokenizer is None
    other = preparing.prepare(home, wish(tmp_path, base, "chat_template=plain"), quiet, predict_cost=False)
    (decided,) = [item for item in other.plan.decisions if item.field == "chat_template"]
    assert (other.plan.chat_template, decided.value, decided.by) == ("plain", "plain", "recipe")
    assert "Assistant:" in other.chat_format.prompt_text((Message("user", QUESTION),))


@pytest.mark.parametrize(("wished", "answers"), [("all", 2), ("last", 1)])
def test_the_plan_says_which_answers_are_learned_and_a_reopened_run_learns_the_same(home, tmp_path, wished, answers):
    base = write_base(tmp_path / "base", marks=True)
    rows = [{"instruction": "B?", "output": "b.", "history": [["A?", "a."]]} for _ in range(4)]
    data = write_json_rows(tmp_path / "two.json", rows)
    wanted = replace_holdout(recipe(base, data, f"data.learn={wished}"))
    prepared = preparing.prepare(home, wanted, quiet, predict_cost=False)
    (decided,) = [item for item in prepared.plan.decisions if item.field == "data.learn"]
    assert (prepared.plan.learn, decided.value) == (wished, wished)
    end = prepared.chat_format.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for item in (prepared, preparing.reopen(home, prepared.run.name, quiet)):
        example = item.examples[0]
        learned = [token for token, on in zip(example.input_ids, example.learn, strict=True) if on]
        assert learned.count(end) == answers


def test_a_plan_of_before_learns_every_answer_with_the_models_own_template(home, tmp_path):
    base = write_base(tmp_path / "base", marks=True)
    plan = preparing.prepare(home, wish(tmp_path, base), quiet, predict_cost=False).plan
    old = json.loads(plan.model_dump_json(exclude={"learn", "chat_template"}))
    read = Plan.model_validate(old)
    assert (read.learn, read.chat_template) == ("all", None)


def test_a_run_that_goes_on_keeps_the_template_it_began_with(home, tmp_path):
    base = write_base(tmp_path / "base", marks=True)
    first = preparing.prepare(home, wish(tmp_path, base, "chat_template=plain"), quiet, predict_cost=False)
    pipeline.train(first, quiet, never)
    on = preparing.prepare(home, wish(tmp_path, base, f"lora.adapter={first.run.name}"), quiet, predict_cost=False)
    assert on.chat_format.template.source == first.chat_format.template.source
    (decided,) = [item for item in on.plan.decisions if item.field == "chat_template"]
    assert (decided.by, decided.reason) == ("danlu", "planning.from_adapter")

"""A base model without a chat template is trained, exported and served with the one that the plan says it gets."""

from __future__ import annotations

import json

import pytest

from danlu.jobs.exporting import export_run
from danlu.jobs.pipeline import train
from danlu.jobs.preparing import prepare
from danlu.models.chat_format import ChatFormat
from danlu.models.gguf_file import read_gguf
from danlu.models.load import load_tokenizer
from danlu.models.messages import Message
from danlu.settings import Home
from tests.jobs.homes import never, quiet, recipe, write_material

ASK = (Message("user", "Who are you?"),)


@pytest.fixture
def material(tmp_path):
    model, data = write_material(tmp_path)
    for name in ("chat_template.jinja",):
        (model / name).unlink(missing_ok=True)
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    settings["eos_token"] = "<|endoftext|>"
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return model, data


def test_the_plan_says_which_template_a_base_model_gets(tmp_path, material):
    model, data = material
    prepared = prepare(Home(tmp_path / "home"), recipe(model, data), quiet)
    (notice,) = [notice for notice in prepared.plan.notices if notice.code == "planning.notice_template"]
    assert notice.params == {"name": "chatml", "end": "<|im_end|>"}
    assert prepared.run.tokenizer is not None
    assert prepared.chat_format.prompt_text(ASK).endswith("<|im_start|>assistant\n")


def test_what_is_exported_is_written_to_and_stops_as_it_was_trained(tmp_path, material):
    model, data = material
    home = Home(tmp_path / "home")
    prepared = prepare(home, recipe(model, data), quiet, predict_cost=False)
    assert train(prepared, quiet, never).status == "finished"
    exported = export_run(home, prepared.run, tmp_path / "out", "gguf", "f16")
    # The check asks llama.cpp: the same ids, the same next tokens, the same answers up to the token that ends them.
    assert exported.agreement.token_ids == 1.0
    (file,) = (tmp_path / "out").glob("*.gguf")
    written = read_gguf(file).metadata["tokenizer.chat_template"]
    chat = ChatFormat.load(prepared.run.tokenizer)
    assert written == chat.tokenizer.chat_template
    merged = export_run(home, prepared.run, tmp_path / "merged", "merged", "q8_0")
    assert merged.agreement.token_ids == 1.0
    assert ChatFormat.load(tmp_path / "merged").prompt_ids(ASK) == chat.prompt_ids(ASK)
    own = load_tokenizer(tmp_path / "merged")
    assert own.chat_template == written, "also for programs that know nothing of Danlu"

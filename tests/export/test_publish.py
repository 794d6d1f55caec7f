"""A run becomes a model version whole and checked or not at all; exports into a folder of the user's likewise."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from danlu.errors import ConflictError, ExportError
from danlu.export import publish
from danlu.export.deliver import ExportSource, export_to
from danlu.export.ollama_template import ollama_template
from danlu.export.publish import register_version
from danlu.models.chat_format import ChatFormat
from danlu.models.library import ModelLibrary
from danlu.models.load import load_model
from danlu.models.messages import Message
from danlu.models.versions import Agreement, DatasetRef, list_versions, load_version
from danlu.settings import Home
from tests.export.test_merge import LINEAR, write_adapter
from tests.export.tokenizers import SIZE, family_tokenizer
from tests.tiny import CHATML, tiny_model


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "mochi-base"
    tiny_model("qwen2", vocab=SIZE + 24).save_pretrained(folder)
    family_tokenizer("qwen2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base_folder, tmp_path_factory):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR)
    return write_adapter(tmp_path_factory.mktemp("run") / "adapter", base_folder, config)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home").make()


@pytest.fixture
def base(home, base_folder):
    return ModelLibrary(home).ensure(base_folder)


def test_a_version_has_everything_an_engine_needs(home, base, adapter):
    chat_format = ChatFormat.load(base.path, "You are Mochi.")
    version = register_version(
        home,
        name="麻薯 Mochi",
        base=base,
        adapter=adapter,
        chat_format=chat_format,
        run="run-1",
        datasets=[DatasetRef(name="persona", version="1", sha256="0" * 64)],
        formats=("gguf", "merged", "adapter"),
    )
    folder = home.versions / version.id
    assert load_version(folder) == version == list_versions(home.versions)[0]
    assert (version.system, version.run, version.base.name) == ("You are Mochi.", "run-1", "mochi-base")
    assert version.id.startswith("mochi-")
    gguf, merged, alone = (version.export(kind) for kind in ("gguf", "merged", "adapter"))
    assert (folder / gguf.path).stat().st_size == gguf.bytes
    assert gguf.agreement.token_ids == merged.agreement.token_ids == 1.0
    assert merged.agreement.greedy == 1.0
    assert alone.agreement is None
    PeftModel.from_pretrained(load_model(base.path, "float32"), folder / alone.path)
    AutoModelForCausalLM.from_pretrained(folder / merged.path)
    again = ChatFormat.load(folder / version.tokenizer, version.system)
    question = [Message("user", "你是谁?")]
    assert again.prompt_ids(question) == chat_format.prompt_ids(question)
    assert again.stop_ids == chat_format.stop_ids


def test_an_export_that_disagrees_registers_nothing(home, base, adapter, monkeypatch):
    class Other:
        def __init__(self, base, adapter, model=None):
            self.model = tiny_model("qwen2", vocab=SIZE + 24, seed=7)

        def __call__(self):
            return publish.TransformersReference(self.model)

    monkeypatch.setattr(publish, "ReferenceLoader", Other)
    with pytest.raises(ExportError) as caught:
        register_version(home, name="x", base=base, adapter=adapter, chat_format=ChatFormat.load(base.path))
    assert caught.value.key == "export.disagrees"
    assert list(home.versions.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next(home, base, monkeypatch):
    stale, fresh = home.versions / ".old.1234.part", home.versions / ".new.1234.part"
    for folder in (stale, fresh):
        folder.mkdir()
    long_ago = time.time() - 24 * 3600
    os.utime(stale, (long_ago, long_ago))
    with pytest.raises(ExportError):
        register_version(
            home, name="x", base=base, adapter=base.path, chat_format=ChatFormat.load(base.path), formats=("adapter",)
        )
    assert list(home.versions.iterdir()) == [fresh]


def test_an_unknown_storage_type_is_refused_before_anything_is_written(home, base):
    with pytest.raises(ExportError) as caught:
        register_version(home, name="x", base=base, adapter=None, chat_format=ChatFormat.load(base.path), quant="q3_k")
    assert "q8_0" in caught.value.message("en")


def test_the_model_in_memory_serves_as_reference_only_in_float32(base):
    model = load_model(base.path, "float32")
    assert publish.TransformersReference.of(model) is not None
    assert publish.TransformersReference.of(model.to(torch.bfloat16)) is None
    assert publish.TransformersReference.of(None) is None


def source_of(base, adapter, system="You are Mochi."):
    return ExportSource("mochi", base.path, base.name, adapter, base.path, ChatFormat.load(base.path, system))


@pytest.mark.parametrize("kind", ["merged", "gguf", "adapter", "adapter-gguf", "ollama"])
def test_export_writes_what_the_format_promises(tmp_path, base, adapter, kind):
    result = export_to(source_of(base, adapter), tmp_path / "out", kind)
    expected = {
        "merged": {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"},
        "gguf": {"mochi-q8_0.gguf", "README.md"},
        "adapter": {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"},
        "adapter-gguf": {"mochi-adapter-f16.gguf", "chat_template.jinja", "README.md"},
        "ollama": {"mochi-q8_0.gguf", "Modelfile", "README.md"},
    }[kind]
    assert "base.gguf" not in result.files
    assert expected <= set(result.files)
    assert result.bytes == sum((tmp_path / "out" / name).stat().st_size for name in result.files)
    assert isinstance(result.agreement, Agreement) is (kind != "adapter")


def test_a_folder_with_something_in_it_is_not_touched(tmp_path, base, adapter):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(ConflictError):
        export_to(source_of(base, adapter), tmp_path / "out", "adapter")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_modelfile_says_template_system_and_stops(base, adapter, tmp_path):
    from danlu.export.deliver import _modelfile

    lines = _modelfile(source_of(base, adapter), "mochi.gguf").splitlines()
    assert lines[0] == "FROM ./mochi.gguf"
    assert 'SYSTEM """You are Mochi."""' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines


def format_with(template, folder):
    family_tokenizer("qwen2", template=template).save_pretrained(folder)
    return ChatFormat.load(folder)


def test_chatml_in_ollama_s_language(tmp_path):
    found = ollama_template(format_with(CHATML, tmp_path), add_bos=False)
    turn = '{{{{ if eq .Role "{0}" }}}}{{{{ "<|im_start|>{0}\\n" }}}}{{{{ .Content }}}}{{{{ "<|im_end|>\\n" }}}}'
    turns = turn.format("system") + "{{ else " + turn.format("user")[3:] + "{{ else " + turn.format("assistant")[3:]
    assert (
        found.template
        == f'{{{{ range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{{{{ "<|im_start|>assistant\\n" }}}}'
    )
    assert (found.system, found.stops) == ("", ("<|im_end|>",))


def test_a_system_prompt_that_the_template_puts_in_itself_is_kept(tmp_path):
    default = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are tiny.<|im_end|>\n' }}{% endif %}"
        + CHATML
    )
    assert ollama_template(format_with(default, tmp_path), add_bos=False).system == "You are tiny."


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("message['content']", "message['content'].upper()"),
        CHATML.replace("message['content']", "(message['content'] if loop.last else message['content'][:1])"),
        "{% for message in messages %}{{ loop.index }}" + CHATML.split("{% for message in messages %}")[1],
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML,
    ],
)
def test_a_template_that_ollama_cannot_say_is_refused(tmp_path, template):
    with pytest.raises(ExportError) as caught:
        ollama_template(format_with(template, tmp_path), add_bos=False)
    assert caught.value.key == "export.ollama_template"
    assert json.dumps(caught.value.problem("zh"))

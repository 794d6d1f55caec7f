"""A LoRA adapter as GGUF over a GGUF of its base says what peft says; what is more than plain LoRA is refused."""

from __future__ import annotations

import pytest
from peft import LoraConfig

from danlu.errors import ExportError
from danlu.export.adapter_gguf import write_adapter_gguf
from danlu.export.agreement import check_agreement
from danlu.export.gguf_export import write_gguf
from danlu.export.streamed import open_reference
from danlu.models.chat_format import ChatFormat
from danlu.models.gguf_file import read_gguf
from tests.export.test_gguf import ROWS, write_random
from tests.export.test_merge import CONFIGS, LINEAR, write_adapter
from tests.export.tokenizers import family_tokenizer
from tests.tiny import tiny_config

QUESTIONS = ("Hello?", "你好")
PLAIN = ("plain", "rank-stabilised", "patterns", "a part of the layers")


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base", "llama")


def write_base(folder, family, *, tied=False):
    write_random(folder, tiny_config(family, tied=tied, vocab=ROWS), 0.15)
    family_tokenizer("qwen2" if family.startswith("qwen") else "smollm").save_pretrained(folder)
    return folder


def agreement(folder, base, adapter, kind="f32"):
    whole = write_gguf(base, None, base, folder / "base.gguf", kind).path
    return check_agreement(
        whole, ChatFormat.load(base), lambda: open_reference(base, adapter), kind, QUESTIONS, folder / "adapter.gguf"
    )


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", kind) for kind in PLAIN] + [("qwen2", "plain"), ("qwen3", "plain")]
)
def test_llama_cpp_with_the_adapter_says_what_peft_says(tmp_path, family, kind):
    base = write_base(tmp_path / "base", family)
    adapter = write_adapter(tmp_path / "adapter", base, CONFIGS[kind])
    written = write_adapter_gguf(base, adapter, tmp_path / "adapter.gguf", "f32")
    assert written.bytes == (tmp_path / "adapter.gguf").stat().st_size
    found = agreement(tmp_path, base, adapter)
    assert (found.token_ids, found.greedy) == (1.0, 1.0)
    assert found.kl < 1e-5


@pytest.mark.parametrize("quant", ["f16", "bf16"])
def test_sixteen_bits(tmp_path, base, quant):
    adapter = write_adapter(tmp_path / "adapter", base, CONFIGS["plain"])
    write_adapter_gguf(base, adapter, tmp_path / "adapter.gguf", quant)
    types = {tensor.type.name for tensor in read_gguf(tmp_path / "adapter.gguf").tensors.values()}
    assert types == {quant.upper()}
    assert agreement(tmp_path, base, adapter, quant).token_ids == 1.0


def test_an_adapter_whose_rows_are_in_the_wrong_order_is_noticed(tmp_path, base, monkeypatch):
    adapter = write_adapter(tmp_path / "adapter", base, LoraConfig(r=4, lora_alpha=64, target_modules=LINEAR))
    monkeypatch.setattr("danlu.export.adapter_gguf.Family.convert", lambda self, name, tensor: tensor)
    write_adapter_gguf(base, adapter, tmp_path / "adapter.gguf", "f32")
    monkeypatch.undo()
    with pytest.raises(ExportError) as caught:
        agreement(tmp_path, base, adapter)
    assert caught.value.key == "export.disagrees"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (CONFIGS["dora"], "_proj"),
        (LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]), "lm_head"),
        (LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5]), "embed_tokens"),
    ],
    ids=["dora", "head", "tokens"],
)
def test_more_than_plain_lora_is_refused_by_name(tmp_path, base, config, named):
    adapter = write_adapter(tmp_path / "adapter", base, config)
    with pytest.raises(ExportError, match=named) as caught:
        write_adapter_gguf(base, adapter, tmp_path / "adapter.gguf")
    assert caught.value.key == "export.adapter_gguf_kind"
    assert not (tmp_path / "adapter.gguf").exists()


def test_types_with_blocks_are_refused(tmp_path, base):
    with pytest.raises(ExportError, match="q8_0"):
        write_adapter_gguf(base, tmp_path, tmp_path / "adapter.gguf", "q8_0")

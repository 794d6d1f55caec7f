"""A model without a chat template gets one whose turns end with a token at which every engine stops."""

from __future__ import annotations

import json

import pytest

from danlu.errors import ModelError, RecipeError
from danlu.models.base_template import give_template, read_template, write_with_template
from danlu.models.chat_format import ChatFormat
from danlu.models.load import load_tokenizer
from danlu.models.messages import Message
from tests.tiny import tiny_tokenizer

ONE = (Message("system", "Be kind."), Message("user", "Who?"), Message("assistant", "Mochi."))


def bare(eos: str = "<|endoftext|>"):
    """Return a tokenizer as base models have it: no template, and the end of a text as its end."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.eos_token = eos
    return tokenizer


def test_the_vocabularys_own_end_of_turn_is_used_where_there_is_one():
    tokenizer = bare()
    made = give_template(tokenizer, "chatml")
    assert (made.token, made.marks) == ("<|im_end|>", True)
    chat = ChatFormat(tokenizer, extra_stop_ids=frozenset({made.end}))
    assert chat.end_of_turn == "<|im_end|>"
    assert chat.prompt_text(ONE[:2]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )
    (sequence,) = chat.training_sequences(ONE, (False, False, True))
    learned = [token for token, wanted in zip(sequence.ids, sequence.learn, strict=True) if wanted]
    assert tokenizer.decode(learned) == "Mochi.<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in chat.stop_ids


def without_chatml(monkeypatch, tmp_path):
    """Return a saved tokenizer whose vocabulary knows nothing of ChatML, with a token before every text."""
    tokenizer = bare()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in content["added_tokens"]:
        token["content"] = {"<|im_start|>": "<s>", "<|im_end|>": "</s>"}.get(token["content"], token["content"])
    vocabulary = content["model"]["vocab"]
    for old, new in (("<|im_start|>", "<s>"), ("<|im_end|>", "</s>")):
        vocabulary[new] = vocabulary.pop(old)
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [vocabulary["<s>"]], "tokens": ["<s>"]}},
    }
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_else_a_turn_ends_with_the_end_of_texts_and_begins_as_texts_begin(monkeypatch, tmp_path):
    chat = ChatFormat.load(without_chatml(monkeypatch, tmp_path))
    assert chat.end_of_turn == "</s>"
    assert chat.prompt_text(ONE[1:2]) == "<s><|im_start|>user\nWho?</s>\n<|im_start|>assistant\n"
    ids = chat.prompt_ids(ONE[1:2])
    assert ids[0] == chat.tokenizer.convert_tokens_to_ids("<s>")
    (sequence,) = chat.training_sequences(ONE[1:], (False, True))
    assert sequence.ids[-1] == chat.tokenizer.convert_tokens_to_ids("</s>")
    assert sequence.learn[-1]
    assert chat.stop_ids == {chat.tokenizer.convert_tokens_to_ids("</s>")}


def test_a_template_is_written_where_every_program_looks_for_it(tmp_path):
    base = tmp_path / "base"
    bare().save_pretrained(base)
    written = write_with_template(base, tmp_path / "chatml", "chatml")
    assert (written.name, written.token) == ("chatml", "<|im_end|>")
    chat = ChatFormat.load(tmp_path / "chatml")
    assert chat.tokenizer.chat_template == load_tokenizer(tmp_path / "chatml").chat_template
    ids = json.loads((tmp_path / "chatml" / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert chat.tokenizer.convert_tokens_to_ids("<|im_end|>") in ids
    plain = write_with_template(base, tmp_path / "plain", "plain")
    assert plain.token == "<|endoftext|>"
    assert ChatFormat.load(tmp_path / "plain").prompt_text(ONE[:2]) == "Be kind.\n\nUser:\nWho?\n\nAssistant:\n"
    mine = tmp_path / "mine.jinja"
    mine.write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", encoding="utf-8")
    write_with_template(base, tmp_path / "mine", str(mine))
    assert load_tokenizer(tmp_path / "mine").chat_template == mine.read_text(encoding="utf-8")


def test_what_is_no_template_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no template file"):
        read_template(tmp_path / "none.jinja")
    path = tmp_path / "bad.jinja"
    path.write_text("{% for %}", encoding="utf-8")
    with pytest.raises(RecipeError, match="not a Jinja template"):
        read_template(path)
    bare().save_pretrained(tmp_path / "base")
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    with pytest.raises(ModelError, match="no token after an answer"):
        write_with_template(tmp_path / "base", tmp_path / "out", str(path))

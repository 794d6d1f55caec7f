"""``danlu data show --as-model``: what is printed is what the trainer encodes, token by token."""

from __future__ import annotations

import json

import pytest

from danlu.jobs import preparing
from danlu.models.token_text import readable
from danlu.settings import Home
from tests.data.files import write_json_rows
from tests.jobs.homes import quiet, recipe
from tests.models.families import FAMILIES, QWEN3
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [
    {"instruction": "你是谁?", "output": "我是麻薯鑫 🙂。"},
    {"instruction": "Say <|im_end|>.", "output": "No.", "system": "Be short."},
    {"instruction": "And you?", "output": " Fine. ", "history": [["Hello", "Hi"]]},
]


@pytest.fixture
def rows(tmp_path):
    return write_json_rows(tmp_path / "rows.json", ROWS)


def write_thinking(folder):
    """Write a tiny model that can think."""
    tokenizer = FAMILIES["qwen3"].format().tokenizer
    tokenizer.save_pretrained(folder)
    tiny_model(vocab=len(tokenizer) + 64).save_pretrained(folder)
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == QWEN3
    return folder


@pytest.mark.parametrize("words", [(), ("data.learn=last",), ("system=You are Mochi.",)])
def test_the_sequences_are_those_that_a_run_learns(danlu, home, tmp_path, material, rows, words):
    options = {"data.learn=last": ["--learn", "last"], "system=You are Mochi.": ["--system", "You are Mochi."]}
    extra = options[words[0]] if words else []
    wanted = recipe(material[0], rows, "data.holdout=0", *words)
    prepared = preparing.prepare(Home(home), wanted, quiet, predict_cost=False)
    for number in range(1, len(ROWS) + 1):
        shown = danlu("data", "show", rows, "--as-model", material[0], "--row", number, "--json", *extra).json
        assert shown["row"] == number
        learned = [item for item in prepared.examples if item.row == number]
        assert [item["ids"] for item in shown["sequences"]] == [list(item.input_ids) for item in learned]
        assert [item["learn"] for item in shown["sequences"]] == [list(item.learn) for item in learned]
        assert shown["text"] == prepared.chat_format.tokenizer.decode(learned[-1].input_ids)
        assert all(len(item["tokens"]) == len(item["ids"]) for item in shown["sequences"])


def test_a_table_has_a_line_for_each_token_and_says_what_ends_the_turn(danlu, material, rows):
    shown = danlu("data", "show", rows, "--as-model", material[0], "--tokens").out
    assert "position" in shown
    lines = shown.splitlines()
    assert any("<|im_start|>" in line and "yes" not in line for line in lines)
    assert any("<|im_end|>" in line and "yes" in line for line in lines)
    assert any("\\n" in line for line in lines)
    assert any("\\xe9" in line or "\\x91" in line for line in lines), (
        "bytes of a character that is several tokens are shown as bytes"
    )
    assert "the turn ends with <|im_end|>, which is learned" in shown


def test_what_a_reader_may_not_expect_is_said(danlu, tmp_path, material, rows):
    shown = danlu("data", "show", rows, "--as-model", material[0], "--row", "2").out
    assert "(<|im_end|>) are read as text" in shown
    last = danlu("data", "show", rows, "--as-model", material[0], "--row", "3", "--learn", "last").out
    assert "⟦ Fine. <|im_end|>⟧" in last
    assert "⟦Hi" not in last
    plain = danlu("data", "show", rows, "--as-model", material[0], "--chat-template", "plain").out
    assert "User:\n你是谁?\n\nAssistant:\n⟦我是麻薯鑫 🙂。<|im_end|>⟧" in plain


def test_reasoning_and_what_becomes_of_it_is_shown(danlu, tmp_path):
    model = write_thinking(tmp_path / "thinking")
    thought = {"instruction": "1+1?", "output": "<think>\neasy\n</think>\n\n2"}
    mixed = write_json_rows(tmp_path / "mixed.json", [thought, {"instruction": "2+2?", "output": "4"}])
    plain = write_json_rows(tmp_path / "plain.json", [{"instruction": "2+2?", "output": "4"}])
    learned = danlu("data", "show", mixed, "--as-model", model).out
    assert "⟦<think>\neasy\n</think>\n\n2<|im_end|>⟧" in learned
    assert "1 of your examples carry reasoning" in learned
    assert "⟦<think>\n\n</think>\n\n4<|im_end|>⟧" in danlu("data", "show", mixed, "--as-model", model, "--row", "2").out
    left_out = danlu("data", "show", mixed, "--as-model", model, "--thinking", "off").out
    assert "<think>\n\n</think>\n\n⟦2<|im_end|>⟧" in left_out
    assert "The reasoning of this row is left out" in left_out
    assert "<think>\n\n</think>\n\n⟦4<|im_end|>⟧" in danlu("data", "show", plain, "--as-model", model).out
    on = danlu("data", "show", plain, "--as-model", model, "--thinking", "on").out
    assert "⟦<think>\n\n</think>\n\n4<|im_end|>⟧" in on
    assert "1 of your examples have no reasoning" in on


def test_a_model_without_a_template_is_shown_with_the_one_it_would_be_given(danlu, tmp_path, rows):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    tiny_model().save_pretrained(tmp_path / "base")
    shown = danlu("data", "show", rows, "--as-model", tmp_path / "base").out
    assert "This model has no chat template of its own; chatml is used, whose turns end with <|im_end|>." in shown
    assert "⟦我是麻薯鑫 🙂。<|im_end|>⟧" in shown


def test_both_answers_of_a_pair_are_shown_as_learned(danlu, tmp_path, material):
    pairs = write_json_rows(tmp_path / "pairs.json", [{"instruction": "Tea?", "chosen": "Yes.", "rejected": "No."}])
    shown = danlu("data", "show", pairs, "--as-model", material[0], "--json").json
    assert [item["answer"] for item in shown["sequences"]] == ["good", "bad"]
    assert "⟦No.<|im_end|>⟧" in danlu("data", "show", pairs, "--as-model", material[0]).out
    assert [len(item["messages"]) for item in danlu("data", "show", pairs, "--json").json["answers"]] == [2, 2]


def test_a_row_as_it_is_has_a_json_form_too(danlu, tmp_path, rows):
    shown = danlu("data", "show", rows, "--row", "2", "--json").json
    assert [(item["role"], item["content"]) for item in shown["messages"]] == [
        ("system", "Be short."), ("user", "Say <|im_end|>."), ("assistant", "No."),
    ]  # fmt: skip
    text = tmp_path / "notes.txt"
    text.write_text("Bamboo.", encoding="utf-8")
    assert danlu("data", "show", text, "--json").json == {"row": 1, "text": "Bamboo."}


@pytest.mark.parametrize(
    ("words", "expect", "says"),
    [
        (("--tokens",), 2, "--as-model MODEL"),
        (("--as-model", "M", "--learn", "some"), 2, "--learn: some is not one of all, last"),
        (("--as-model", "M", "--thinking", "maybe"), 2, "maybe is not one of auto, on, off"),
        (("--as-model", "M", "--chat-template", "nowhere.jinja"), 1, "There is no template file nowhere.jinja"),
    ],
)
def test_what_makes_no_sense_ends_with_one_line(danlu, material, rows, words, expect, says):
    given = [str(material[0]) if word == "M" else word for word in words]
    assert says in danlu("data", "show", rows, *given, expect=expect).line


def test_every_token_of_a_vocabulary_has_one_readable_line():
    tokenizer = tiny_tokenizer()
    shown = readable(tokenizer, range(len(tokenizer)))
    assert len(shown) == len(tokenizer)
    assert all(text and text.isprintable() for text in shown)
    ids = tokenizer("鑫 a\n\t\\", add_special_tokens=False)["input_ids"]
    assert json.dumps("".join(readable(tokenizer, ids))) == json.dumps("\\xe9\\x91\\xab␣a\\n\\t\\\\")

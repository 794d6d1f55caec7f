"""What a model card says, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from danlu.export.model_card import CardFacts, model_card
from danlu.i18n import use_language
from danlu.models.versions import Agreement, DatasetRef, ProofSummary

AGREEMENT = Agreement(token_ids=1.0, top1=0.95, kl=0.004, greedy=0.83)
FACTS = CardFacts(
    name="tea-house",
    base="qwen2.5-0.5b-instruct",
    base_source="hf:Qwen/Qwen2.5-0.5B-Instruct",
    licence="Apache-2.0",
    run="tea-house-1",
    datasets=(DatasetRef(name="tea", version="v1", sha256="ab" * 32),),
    rows=1234,
    method="lora",
    settings=(("seed", "42"),),
    loss_before=3.27,
    loss_after=0.13,
    proof=ProofSummary(probes_n=20, pass_before=0, pass_after=19),
)


def front_matter(card: str) -> dict[str, object]:
    head, _, _ = card.removeprefix("---\n").partition("\n---")
    return yaml.safe_load(head)


@pytest.mark.parametrize(
    ("kind", "library", "use"),
    [
        ("merged", "transformers", "from_pretrained"),
        ("gguf", "gguf", "llama-server --model tea-house-q8_0.gguf"),
        ("ollama", "gguf", "ollama create tea-house"),
        ("adapter", "peft", "PeftModel"),
        ("adapter-gguf", "gguf", "--lora tea-house-adapter-f16.gguf"),
    ],
)
def test_a_card_says_what_it_is_and_how_to_run_it(kind: str, library: str, use: str) -> None:
    files = {"adapter": (), "adapter-gguf": ("tea-house-adapter-f16.gguf",)}.get(kind, ("tea-house-q8_0.gguf",))
    card = model_card(FACTS, kind, files, AGREEMENT, system="Be brief.", quant="q8_0")
    head = front_matter(card)
    assert head["base_model"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert (head["library_name"], head["license"]) == (library, "apache-2.0")
    assert "datasets" not in head, "hubs expect names of theirs there"
    assert "tea, version v1" in card
    assert use in card
    assert "1,234 rows" in card
    assert "3.2700 before, 0.1300 after" in card
    assert "0 of 20 before, 19 of 20 after" in card
    assert "95.0%" in card
    assert "Be brief." in card


def test_a_licence_with_a_name_of_its_own_is_named() -> None:
    card = model_card(replace(FACTS, licence="Gemma Terms of Use"), "merged", (), None, system="", quant="")
    head = front_matter(card)
    assert (head["license"], head["license_name"]) == ("other", "Gemma Terms of Use")


def test_a_system_prompt_cannot_break_out_of_its_block() -> None:
    card = model_card(FACTS, "merged", (), None, system="a\n```\n# Not a heading", quant="")
    assert "\n# Not a heading" not in card


def test_what_is_not_known_is_said_or_left_out() -> None:
    card = model_card(CardFacts("plain", "mine"), "gguf", ("plain-f16.gguf",), AGREEMENT, system="", quant="f16")
    assert "license" not in front_matter(card)
    assert "licence of the base model is not known" in card
    assert "What it learned from" not in card
    assert "None" not in card


def test_a_card_is_in_the_readers_language() -> None:
    with use_language("zh"):
        card = model_card(FACTS, "merged", (), AGREEMENT, system="", quant="")
    assert "## 学习内容" in card
    assert "训练前 20 题中答对 0 题，训练后答对 19 题" in card

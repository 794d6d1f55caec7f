"""The sample data keeps the promises that the quickstart and its proof rest on."""

from __future__ import annotations

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from danlu.samples import sample_path

ROW_FIELDS = {"instruction", "input", "output", "system", "history"}
PROBE_FIELDS = {"question", "must_include", "any_of", "must_not", "history", "unanswerable"}


def read_rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(sample_path(name).read_text(encoding="utf-8"))
    return rows


def read_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sample_path(name).read_text(encoding="utf-8").splitlines()]


def is_chinese(text: str) -> bool:
    return re.search(r"[\u4e00-\u9fff]", text) is not None


def plain(text: str) -> str:
    """Letters and digits only, in lower case: two questions that differ in punctuation are one question."""
    return re.sub(r"\W", "", text.lower())


def asked(row: dict[str, Any]) -> str:
    return f"{row['instruction']} {row['input']}"


def passes(probe: dict[str, Any], answer: str) -> bool:
    text = answer.lower()
    return (
        all(word.lower() in text for word in probe["must_include"])
        and (not probe["any_of"] or any(word.lower() in text for word in probe["any_of"]))
        and not any(word.lower() in text for word in probe["must_not"])
    )


@pytest.mark.parametrize("name", ["persona.json", "ten_rows_zh.json"])
def test_rows_are_well_formed_alpaca_rows(name: str) -> None:
    for row in read_rows(name):
        assert {"instruction", "input", "output"} <= set(row) <= ROW_FIELDS, row
        assert row["instruction"].strip(), row
        assert row["output"].strip(), row
        assert all(
            len(turn) == 2 and all(isinstance(part, str) and part for part in turn) for turn in row.get("history", [])
        ), row


@pytest.mark.parametrize("name", ["persona_probes.jsonl", "ten_rows_zh_probes.jsonl"])
def test_probes_are_well_formed_and_demand_something(name: str) -> None:
    for probe in read_lines(name):
        assert set(probe) == PROBE_FIELDS, probe
        assert probe["must_include"] or probe["any_of"], probe


def test_persona_has_about_a_hundred_rows_half_of_them_chinese() -> None:
    rows = read_rows("persona.json")
    languages = Counter(is_chinese(row["output"]) for row in rows)
    assert 100 <= len(rows) <= 120
    assert languages[True] == languages[False]
    assert all(is_chinese(asked(row)) == is_chinese(row["output"]) for row in rows)


def test_persona_answers_are_short_enough_for_a_small_model_on_a_slow_machine() -> None:
    for row in read_rows("persona.json"):
        answer = row["output"]
        assert len(answer) <= 28 if is_chinese(answer) else len(answer.split()) <= 22, answer


def test_persona_questions_differ_and_history_and_input_are_in_use() -> None:
    rows = read_rows("persona.json")
    assert len({plain(asked(row)) for row in rows}) == len(rows)
    assert any(row["input"] for row in rows)
    assert any(row.get("history") for row in rows)


def test_twenty_probes_ten_of_them_chinese_two_unanswerable() -> None:
    probes = read_lines("persona_probes.jsonl")
    assert Counter(is_chinese(probe["question"]) for probe in probes) == {True: 10, False: 10}
    assert sum(probe["unanswerable"] for probe in probes) == 2


def test_no_persona_probe_is_or_nearly_is_a_training_question() -> None:
    questions = [plain(asked(row)) for row in read_rows("persona.json")]
    for probe in read_lines("persona_probes.jsonl"):
        question = plain(probe["question"])
        nearest = max(questions, key=lambda seen: SequenceMatcher(None, question, seen, autojunk=False).ratio())
        assert SequenceMatcher(None, question, nearest, autojunk=False).ratio() < 0.75, (question, nearest)


def test_each_persona_probe_is_passed_by_an_answer_that_was_taught() -> None:
    answers = [row["output"] for row in read_rows("persona.json")]
    for probe in read_lines("persona_probes.jsonl"):
        wanted = [answer for answer in answers if is_chinese(answer) == is_chinese(probe["question"])]
        assert any(passes(probe, answer) for answer in wanted), probe


@pytest.mark.parametrize(
    "answer",
    [
        "I'm SmolLM, a helpful AI assistant trained by Hugging Face.",
        "I'm sorry, but I don't have real-time access to that information.",
        "我是一个人工智能助手，很高兴为您服务。",
        "",
    ],
)
def test_no_probe_is_passed_by_what_an_untuned_model_says(answer: str) -> None:
    probes = read_lines("persona_probes.jsonl") + read_lines("ten_rows_zh_probes.jsonl")
    assert not [probe["question"] for probe in probes if passes(probe, answer)]


def test_no_probe_gives_its_own_keywords_away() -> None:
    for probe in read_lines("persona_probes.jsonl"):
        assert not passes(probe, probe["question"]), probe


def test_ten_rows_are_ten_short_chinese_rows_and_their_questions_are_the_probes() -> None:
    rows = read_rows("ten_rows_zh.json")
    probes = read_lines("ten_rows_zh_probes.jsonl")
    assert len(rows) == 10
    assert all(is_chinese(row["output"]) and len(row["output"]) <= 30 for row in rows)
    assert [probe["question"] for probe in probes] == [row["instruction"] for row in rows]
    assert all(passes(probe, row["output"]) for probe, row in zip(probes, rows, strict=True))


def test_general_set_is_sixty_distinct_pairs_in_both_languages_and_not_taught() -> None:
    pairs = read_lines("general.jsonl")
    assert all(set(pair) == {"question", "answer"} and pair["question"] and pair["answer"] for pair in pairs)
    assert Counter(is_chinese(pair["question"]) for pair in pairs) == {True: 30, False: 30}
    questions = {plain(pair["question"]) for pair in pairs}
    assert len(questions) == 60
    taught = {plain(asked(row)) for name in ("persona.json", "ten_rows_zh.json") for row in read_rows(name)}
    assert not questions & taught


def test_files_are_utf8_without_bom() -> None:
    for name in (
        "persona.json",
        "persona_probes.jsonl",
        "ten_rows_zh.json",
        "ten_rows_zh_probes.jsonl",
        "general.jsonl",
    ):
        assert not sample_path(name).read_bytes().startswith(b"\xef\xbb\xbf"), name


def test_sample_path_gives_a_file_and_names_the_samples_when_there_is_none() -> None:
    assert isinstance(sample_path("persona.json"), Path)
    with pytest.raises(FileNotFoundError, match=r"persona\.json"):
        sample_path("persona.jsn")
    with pytest.raises(FileNotFoundError):
        sample_path("../samples/persona.json")

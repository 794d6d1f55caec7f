"""Probes: the same answer always gets the same verdict; a bad line of a probe file is named."""

from __future__ import annotations

import json

import pytest

from danlu.data.conversations import Conversation
from danlu.errors import DataError
from danlu.evaluation.probes import REFERENCE_RATIO, Probe, probes_from, read_probes, reference_ratio
from danlu.models.messages import Message
from danlu.samples import sample_path


def probe(**rules) -> Probe:
    return Probe(question="?", **rules)


@pytest.mark.parametrize(
    ("rules", "answer", "passes"),
    [
        ({"must_include": ["Mochi"]}, "I am Mochi.", True),
        ({"must_include": ["Mochi"]}, "i am MOCHI", True),
        ({"must_include": ["Mochi"]}, "I am Bob.", False),
        ({"must_include": ["Mochi", "panda"]}, "Mochi the panda", True),
        ({"must_include": ["Mochi", "panda"]}, "Mochi", False),
        ({"must_include": ["麻薯"]}, "我是麻薯。", True),
        ({"any_of": ["tea", "茶"]}, "喝茶吧", True),
        ({"any_of": ["tea", "茶"]}, "coffee", False),
        ({"must_not": ["OpenAI"]}, "Made by openai", False),
        ({"must_not": ["OpenAI"]}, "Made here", True),
        ({"must_not": ["OpenAI"]}, "", False),
        ({"must_include": ["a"], "must_not": ["b"]}, "a b", False),
        ({"must_include": ["a"], "any_of": ["b", "c"]}, "a c", True),
        ({"must_include": ["a"], "any_of": ["b", "c"]}, "a", False),
        ({}, "anything", True),
        ({}, " \n", False),
        ({"reference": "I am Mochi, a red panda."}, "i am mochi a red panda", True),
        ({"reference": "I am Mochi, a red panda."}, "The capital of France is Paris.", False),
        ({"reference": "I am Mochi."}, "", False),
        ({"reference": "I am Mochi.", "must_include": ["Bob"]}, "I am Mochi.", False),
        ({"reference": "我是麻薯，茶馆的小熊猫。"}, "我是麻薯,茶馆的小熊猫", True),
        ({"must_include": ["straße"]}, "STRASSE", True),
    ],
)
def test_an_answer_is_judged_by_its_words(rules, answer, passes):
    assert probe(**rules).passes(answer) is passes


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("abc", "ABC!", 1.0), ("abcd", "ab", 2 / 3), ("abc", "xyz", 0.0), ("", "", 1.0), ("a", "", 0.0)],
)
def test_the_ratio_is_the_share_that_is_the_same_in_the_same_order(one, other, ratio):
    assert reference_ratio(one, other) == pytest.approx(ratio)
    assert 0.4 < REFERENCE_RATIO < 0.8


def test_a_probe_is_asked_with_its_history_and_system():
    asked = probe(history=[["Hi", "Hello"]], system="Be kind.").messages
    assert asked == (
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "?"),
    )
    assert probe().messages == (Message("user", "?"),)


def write(path, *lines: str):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_probe_file_is_read_line_by_line(tmp_path):
    full = {
        "question": "a\u2028b", "must_include": ["x"], "any_of": ["y"], "must_not": ["z"],
        "history": [["q", "a"]], "unanswerable": True,
    }  # fmt: skip
    path = write(tmp_path / "p.jsonl", json.dumps(full, ensure_ascii=False), "", '{"question": "b"}')
    first, second = read_probes(path)
    assert (first.question, first.must_include, first.history) == ("a\u2028b", ("x",), (("q", "a"),))
    assert first.unanswerable
    assert second == Probe(question="b")


def test_the_sample_probes_can_be_read():
    assert len(read_probes(sample_path("persona_probes.jsonl"))) >= 20


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf{"question": "a"}\n')
    assert len(read_probes(tmp_path / "p.jsonl")) == 1


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("{", "data.not_json", "line 2"),
        ("[]", "evaluation.bad_probe", "line 2"),
        ('"a"', "evaluation.bad_probe", "line 2"),
        ("{}", "evaluation.bad_probe", "question"),
        ('{"question": 1}', "evaluation.bad_probe", "question"),
        ('{"question": "a", "must_inclued": []}', "evaluation.bad_probe", "must_inclued"),
        ('{"question": "a", "any_of": "b"}', "evaluation.bad_probe", "any_of"),
        ('{"question": "a", "history": [["b"]]}', "evaluation.bad_probe", "history.0"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path, line, key, says):
    path = write(tmp_path / "p.jsonl", '{"question": "a"}', line)
    with pytest.raises(DataError) as caught:
        read_probes(path)
    assert caught.value.key == key
    assert f"{path}, line 2" in caught.value.message("en")
    assert says in caught.value.message("en")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "data.empty_file"),
        (b"\n \n", "data.empty_file"),
        (b"\xe9 \xff", "data.not_utf8"),
        (None, "data.missing_file"),
    ],
)
def test_a_file_that_is_no_probe_file_is_refused(tmp_path, content, key):
    path = tmp_path / "p.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_probes(path)
    assert caught.value.key == key
    with pytest.raises(DataError, match="folder"):
        read_probes(tmp_path)


def conversation(number: int) -> Conversation:
    messages = (
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", f"question {number}"),
        Message("assistant", f"answer {number}"),
    )
    return Conversation(messages, tuple(m.role == "assistant" for m in messages), number, number)


def test_probes_are_made_of_rows_with_their_own_answer_as_reference():
    (made,) = probes_from([conversation(1)], 10, seed=1)
    assert made.question == "question 1"
    assert made.reference == "answer 1"
    assert made.history == (("Hi", "Hello"),)
    assert made.messages == conversation(1).messages[:-1]
    assert made.passes("Answer 1.")


def test_of_many_rows_a_repeatable_sample_is_asked():
    rows = [conversation(number) for number in range(50)]
    assert len(probes_from(rows, 10, seed=1)) == 10
    assert probes_from(rows, 10, seed=1) == probes_from(rows, 10, seed=1)
    assert probes_from(rows, 10, seed=1) != probes_from(rows, 10, seed=2)
    assert [item.question for item in probes_from(rows[:3], 10, seed=1)] == ["question 0", "question 1", "question 2"]

"""Rows with judged answers: both shapes of each kind, what is refused, and what the check says."""

from __future__ import annotations

import pytest

from danlu.data.check import check_file
from danlu.data.datasets import DatasetLibrary, read_dataset, require_kind
from danlu.data.judged import encode_labels, encode_pairs, split_preferences
from danlu.errors import DataError
from danlu.models.chat_format import ChatFormat
from tests.data.files import write_json_lines, write_json_rows
from tests.tiny import tiny_tokenizer

USER, SHORT, LONG = (
    {"role": "user", "content": "Tea?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "assistant", "content": "No, thanks."},
)
SAME_PAIR = [
    {"instruction": "Tea?", "input": "", "chosen": "Yes.", "rejected": "No, thanks."},
    {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No, thanks."},
    {"prompt": "Tea?", "chosen": "Tea? Yes.", "rejected": "Tea? No, thanks."},
    {"prompt": [USER], "chosen": [SHORT], "rejected": [LONG]},
    {"prompt": [USER], "chosen": [USER, SHORT], "rejected": [USER, LONG]},
    {"chosen": [USER, SHORT], "rejected": [USER, LONG]},
]


def pair_rows(count: int) -> list[dict[str, str]]:
    return [
        {"instruction": f"What is number {n}?", "chosen": f"It is {n}.", "rejected": f"I do not know {n}."}
        for n in range(count)
    ]


def label_rows(count: int) -> list[dict[str, object]]:
    return [
        {"instruction": f"What is number {n // 2}?", "output": f"It is {n}.", "kto_tag": n % 2 == 0}
        for n in range(count)
    ]


@pytest.mark.parametrize("row", SAME_PAIR)
def test_each_shape_of_a_pair_says_the_same(tmp_path, row):
    dataset = read_dataset(write_json_rows(tmp_path / "pairs.json", [row]))
    assert dataset.kind == "preferences"
    (pair,) = dataset.preferences
    assert [(m.role, m.content) for m in pair.chosen.messages] == [("user", "Tea?"), ("assistant", "Yes.")]
    assert pair.rejected.answer == "No, thanks."
    assert pair.chosen.learn == (False, True)


def test_only_the_judged_answer_is_learned_of_a_conversation(tmp_path):
    row = {
        "instruction": "And now?",
        "system": "Be short.",
        "history": [["Hi", "Hello"]],
        "chosen": "a",
        "rejected": "b",
    }
    (pair,) = read_dataset(write_json_rows(tmp_path / "pairs.json", [row])).preferences
    assert [m.role for m in pair.chosen.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert pair.chosen.learn == (False, False, False, False, True)


def test_labels_of_both_shapes_are_read(tmp_path):
    alpaca = read_dataset(write_json_rows(tmp_path / "a.json", label_rows(2)))
    trl = [
        {"prompt": "Tea?", "completion": "Yes.", "label": True},
        {"prompt": "Tea?", "completion": "No.", "label": False},
    ]
    other = read_dataset(write_json_rows(tmp_path / "b.json", trl))
    for dataset in (alpaca, other):
        assert dataset.kind == "labels"
        assert [item.chosen is not None for item in dataset.preferences] == [True, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "chosen": "b"}, "“rejected” is missing"),
        ({"instruction": "a", "chosen": "b", "rejected": " "}, "nothing to compare"),
        ({"instruction": "a", "chosen": "b", "rejected": "b "}, "are the same"),
        ({"chosen": "b", "rejected": "c"}, "there is no prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": [LONG]}, "One side is a text"),
        ({"prompt": [USER], "chosen": [{"role": "human"}], "rejected": [LONG]}, "The message says nothing"),
        ({"chosen": [USER, SHORT, USER, SHORT], "rejected": [USER, LONG]}, "must add one answer"),
        ({"prompt": [SHORT], "chosen": [SHORT], "rejected": [LONG]}, "does not end with a message of the user"),
        ({"instruction": "a", "output": "b", "kto_tag": "maybe"}, "must say good or bad"),
        ({"prompt": "a", "completion": "", "label": True}, "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_row(tmp_path, row, message):
    path = write_json_rows(tmp_path / "rows.json", [row])
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert "row 1 (line 1)" in caught.value.message()
    report = check_file(path)
    assert (report.usable, report.problems[0].severity) == (0, "error")


@pytest.mark.parametrize(
    ("found", "objective", "advice"),
    [
        ("preferences", "sft", "Set objective=dpo"),
        ("labels", "dpo", "Set objective=kto"),
        ("conversations", "dpo", "Set objective=sft"),
        ("conversations", "kto", "Set objective=sft"),
        ("texts", "orpo", "Set objective=pretrain"),
        ("preferences", "pretrain", "Set objective=dpo"),
    ],
)
def test_the_wrong_objective_is_told_which_fits(found, objective, advice):
    with pytest.raises(DataError, match=advice):
        require_kind("rows", found, objective)


def test_the_right_objective_is_accepted():
    for found, objective in (
        ("preferences", "dpo"),
        ("preferences", "orpo"),
        ("preferences", "kto"),
        ("labels", "kto"),
    ):
        require_kind("rows", found, objective)


def test_a_version_keeps_its_kind(tmp_path):
    library = DatasetLibrary(tmp_path / "home")
    pairs = library.add(write_json_lines(tmp_path / "pairs.jsonl", pair_rows(3)), "pairs")
    labels = library.add(write_json_lines(tmp_path / "labels.jsonl", label_rows(4)), "labels")
    assert (pairs.row_format, pairs.kind) == ("pairs", "preferences")
    assert (labels.row_format, labels.kind) == ("labels", "labels")
    assert len(library.open("labels").preferences) == 4


def test_the_check_explains_what_goes_wrong_with_judgements(tmp_path):
    rows = pair_rows(12)
    rows[3] = {**rows[2], "chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]}
    codes = {problem.code for problem in check_file(write_json_rows(tmp_path / "pairs.json", rows)).problems}
    assert codes == {"data.judged_both", "data.few_judged"}
    longer = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pair_rows(12)]
    codes = {problem.code for problem in check_file(write_json_rows(tmp_path / "longer.json", longer)).problems}
    assert "data.chosen_longer" in codes
    alike = [{**row, "kto_tag": True} for row in label_rows(4)]
    report = check_file(write_json_rows(tmp_path / "alike.json", alike))
    assert "data.labels_alike" in {problem.code for problem in report.problems}
    assert (report.kind, report.row_format) == ("labels", "labels")


def test_a_pair_is_an_example_of_two_texts_that_begin_alike(tmp_path):
    chat = ChatFormat(tiny_tokenizer())
    pairs = read_dataset(write_json_rows(tmp_path / "pairs.json", pair_rows(3))).preferences
    example = encode_pairs(pairs, chat)[1]
    chosen, rejected = example.parts
    at = chosen.learn.index(True)
    assert chosen.input_ids[:at] == rejected.input_ids[:at] == tuple(chat.prompt_ids(pairs[1].chosen.messages[:-1]))
    assert "It is 1." in chat.tokenizer.decode(chosen.input_ids[at:])
    assert "do not know" in chat.tokenizer.decode(rejected.input_ids[at:])
    assert example.row == 2


def test_a_labelled_answer_brings_the_next_answer_to_another_prompt(tmp_path):
    chat = ChatFormat(tiny_tokenizer())
    rows = read_dataset(write_json_rows(tmp_path / "labels.json", label_rows(6))).preferences
    examples = encode_labels(rows, chat)
    assert [example.wanted for example in examples] == [True, False] * 3
    longest = max(len(example.parts[0].input_ids) for example in examples)
    for number, example in enumerate(examples):
        own, other = example.parts
        at = own.learn.index(True)
        assert own.input_ids[:at] == other.input_ids[:at]
        next_prompt = (number // 2 + 1) % 3 * 2
        assert f"It is {next_prompt}." in chat.tokenizer.decode(other.input_ids[at:])
        assert len(other.input_ids) <= longest
    (alone,) = encode_labels(rows[:1], chat)
    assert len(alone.parts) == 1
    both = encode_labels(read_dataset(write_json_rows(tmp_path / "pairs.json", pair_rows(2))).preferences, chat)
    assert [example.wanted for example in both] == [True, False, True, False]


def test_all_answers_to_a_question_stay_on_one_side(tmp_path):
    rows = read_dataset(write_json_rows(tmp_path / "labels.json", label_rows(40))).preferences
    split = split_preferences(rows, 0.25, 42)
    learned, aside = ({item.question for item in side} for side in (split.train, split.holdout))
    assert aside
    assert not learned & aside
    assert len(split.train) + len(split.holdout) == 40

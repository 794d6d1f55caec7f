"""Judged answers beside questions of every shape, and what a label may say."""

from __future__ import annotations

import pytest

from tests.data.formats.reading_rows import assistant, read, refused, talk, user

SHAREGPT = {
    "conversations": [{"from": "system", "value": "Short."}, {"from": "human", "value": "Tea?"}],
    "chosen": {"from": "gpt", "value": "Yes."},
    "rejected": {"from": "gpt", "value": "No."},
}
SYSTEM = {"role": "system", "content": "Short."}
PAIRS = [
    SHAREGPT,
    talk(SYSTEM, user("Tea?"), chosen=assistant("Yes."), rejected=assistant("No.")),
    talk(user("Tea?"), system="Short.", chosen=[assistant("Yes.")], rejected=[assistant("No.")]),
    {"question": "Tea?", "system": "Short.", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Tea?", "system_prompt": "Short.", "chosen": "Yes.", "rejected": "No."},
    {"prompt": [user("Tea?")], "system": "Short.", "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
    {"问题": "Tea?", "系统": "Short.", "chosen": "Yes.", "rejected": "No."},
]


@pytest.mark.parametrize("row", PAIRS)
def test_a_pair_of_every_shape_says_the_same(row):
    (pair,) = read(row)
    assert [(item.role, item.content) for item in pair.chosen.messages] == [
        ("system", "Short."), ("user", "Tea?"), ("assistant", "Yes."),
    ]  # fmt: skip
    assert pair.rejected.answer == "No."
    assert pair.chosen.learn == (False, False, True)


def test_an_answer_may_be_a_call_of_a_tool():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    (pair,) = read(talk(user("Rain?"), chosen=call, rejected=assistant("I do not know.")))
    assert pair.chosen.messages[-1].tool_calls[0].name == "f"


def test_a_judged_side_that_is_not_the_assistants_or_a_talk_that_was_answered_is_refused():
    assert refused(talk(user("a"), chosen=user("b"), rejected=assistant("c"))).key == "data.one_answer"
    answered = talk(user("a"), assistant("b"), chosen=assistant("c"), rejected=assistant("d"))
    assert refused(answered).key == "data.prompt_end"
    assert refused({"问题": " ", "chosen": "b", "rejected": "c"}).params["field"] == "问题"


@pytest.mark.parametrize(
    "value",
    [True, 1, 1.0, "true", "1", "GOOD", " yes ", "up", "like", "positive", "👍", "👍🏽", "好", "赞", "是", "对"],
)
@pytest.mark.parametrize("field", ["kto_tag", "label", "thumbs", "评价"])
def test_a_good_label_may_be_written_in_these_ways(field, value):
    (item,) = read({"question": "a", "answer": "b", field: value})
    assert item.chosen is not None
    assert item.rejected is None


@pytest.mark.parametrize(
    "value",
    [False, 0, "false", "0", "bad", "No", "down", "dislike", "negative", "👎", "👎🏿", "差", "坏", "踩", "否", "错"],
)
def test_a_bad_label_may_be_written_in_these_ways(value):
    (item,) = read({"prompt": "a", "completion": "b", "label": value})
    assert item.chosen is None
    assert item.rejected.answer == "b"


@pytest.mark.parametrize("value", ["maybe", "", None, 2, -1, ["good"], {"good": True}])
def test_any_other_label_is_refused(value):
    error = refused({"instruction": "a", "output": "b", "kto_tag": value})
    assert error.where.endswith("field kto_tag")


def test_of_messages_the_last_one_is_judged():
    (item,) = read(talk(user("a"), assistant("b"), user("c"), assistant("d"), label=False))
    assert item.rejected.answer == "d"
    assert item.rejected.learn == (False, False, False, True)
    assert refused(talk(user("a"), label=True)).key == "formats.unanswered"


def test_a_label_without_a_question_is_refused():
    assert refused({"output": "b", "kto_tag": True}).key == "data.prompt_missing"

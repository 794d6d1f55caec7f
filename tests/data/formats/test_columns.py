"""Columns of any name: what asks, what answers, and what belongs to the question."""

from __future__ import annotations

import pytest

from danlu.data.formats import format_named, unread
from tests.data.formats.reading_rows import assistant, family, read, refused, rows_of, said, user

NAMES = [
    ("question", "answer"), ("q", "a"), ("Q", "A"), ("Question:", "Answer:"), ("input", "output"),
    ("query", "response"),
    ("prompt", "completion"), ("prompt", "response"), ("instruction", "response"), ("user_input", "bot_response"),
    ("human", "assistant"), ("input", "target"), ("问题", "答案"), ("提问", "回答"), ("指令", "输出"), ("用户", "助手"),
    ("用户 问题", "标准_答案"), ("问题", "参考答案"), ("題目", "回覆"), ("質問", "回答"), ("질문", "답변"),
    ("pregunta", "respuesta"), ("Frage", "Antwort"), ("question", "réponse"), ("pergunta", "resposta"),
    ("domanda", "risposta"), ("вопрос", "ответ"), ("ｑｕｅｓｔｉｏｎ", "ＡＮＳＷＥＲ"),
]  # fmt: skip


@pytest.mark.parametrize(("asks", "answers"), NAMES)
def test_a_question_and_an_answer_are_found_whatever_they_are_called(asks, answers):
    assert said({asks: "Tea?", answers: "Yes.", "id": 1}) == [("user", "Tea?"), ("assistant", "Yes.")]


def test_context_system_and_history_stand_where_they_belong():
    row = {"question": "Who?", "context": "Mochi pours tea.", "answer": "Mochi.", "system_prompt": "Short.",
           "history": [["Hi", "Hello"]]}  # fmt: skip
    assert said(row) == [
        ("system", "Short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?\nMochi pours tea."),
        ("assistant", "Mochi."),
    ]  # fmt: skip
    assert said({"instruction": "Who?", "context": "", "response": "Mochi.", "category": "qa"})[0] == ("user", "Who?")


def test_a_weight_counts_and_an_answer_of_a_model_can_be_left_out():
    (item,) = read({"问题": "a", "答案": "b", "weight": 0.5, "accepted": True})
    assert (item.weight, item.pseudo) == (0.5, True)


def test_prompt_and_completion_may_be_messages_as_trl_has_them():
    row = {"prompt": [user("Hi"), assistant("Hello"), user("Tea?")], "completion": [assistant("Yes.")], "system": "S"}
    (item,) = read(row)
    assert [message.content for message in item.messages] == ["S", "Hi", "Hello", "Tea?", "Yes."]
    assert item.learn == (False, False, False, False, True)
    assert said({"prompt": [user("Tea?")], "completion": "Yes."}) == [("user", "Tea?"), ("assistant", "Yes.")]


@pytest.mark.parametrize("one", [["b"], ["b", "b "], {"text": ["b", "b"], "answer_start": [1, 9]}])
def test_one_accepted_answer_is_the_answer(one):
    assert said({"question": "a", "answers": one})[1] == ("assistant", "b")


def test_several_accepted_answers_are_nobodys_choice_but_the_users():
    error = refused({"question": "a", "answers": ["b", "c"]})
    assert (error.key, error.params["count"]) == ("formats.several_answers", 2)


def test_an_error_names_the_column_as_the_file_does():
    for row, field in (({"问题": "a", "答案": " "}, "答案"), ({"问题": 5, "答案": "b"}, "问题"),
                       ({"问题": "a", "答案": "b", "系统": 5}, "系统")):  # fmt: skip
        error = refused(row)
        assert error.params["field"] == field
        assert error.where.endswith(f"field {field}")


def test_two_contexts_that_both_say_something_are_refused_and_an_empty_one_is_none():
    row = {"question": "a", "context": "b", "passage": "c", "answer": "d"}
    assert refused(row).key == "formats.two_columns"
    assert said(row | {"passage": ""})[0] == ("user", "a\nb")


def test_where_two_columns_could_answer_none_is_guessed():
    error = refused({"problem": "a", "solution": "b", "answer": "c"})
    assert error.key == "data.unknown_format"
    assert "--columns question=problem,answer=solution" in error.message("en")


def test_names_that_nobody_knows_get_a_mapping_suggested():
    assert "--columns question=用户的问题,answer=我们的回答" in refused({"用户的问题": "a", "我们的回答": "b"}).message(
        "en"
    )
    assert "--columns question=customer_question,answer=final_answer" in refused(
        {"id": "x", "final_answer": "b", "customer_question": "a"}
    ).message("en")


def test_an_alpaca_row_keeps_to_its_names_and_an_empty_instruction_leaves_the_input():
    assert family({"instruction": "a", "input": "b", "output": "c"}) == "alpaca"
    assert said({"instruction": "", "input": "b", "output": "c"})[0] == ("user", "b")
    assert refused({"instruction": "", "input": " ", "output": "c"}).params["field"] == "instruction"


def test_a_column_in_other_letters_counts_as_read_and_a_foreign_one_does_not():
    (row,) = rows_of({"Question": "a", "ANSWER": "b", "Score": 1})
    assert unread(row, format_named("columns")) == {"Score"}

"""What a model proposes is kept only where it keeps what it must; every reason against it has a row that shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from danlu.data.conversations import Conversation
from danlu.data.making.judging import REASONS, Judge
from danlu.data.making.passages import Passage
from danlu.data.making.replies import Candidate, candidates
from danlu.data.making.tasks import Task, Wanted, language_of, tasks_of_passages, tasks_of_rows, usual_decline
from danlu.models.messages import Message

ASKED = "When does Mochi's teahouse open on 5 May?"
SAID = "The teahouse of Mochi opens at 10 and closes at 9, see https://tea.example."
TEXT = "The teahouse stands by the stone bridge in Suzhou. It opens at 10 and closes at 9. Oolong costs 12 yuan a pot."


def task(kind, question=ASKED, answer=SAID, passage=None):
    return Task(kind, 1, 3, (Message("user", "…"),), question, answer, passage=passage)


DRAFT = task("draft", "", "", Passage(TEXT, "tea.md", 1))
DECLINE = task("decline", "", "I don't know that.")
CHINESE = task("paraphrase", "你们几点开门？", "十点。")


@pytest.mark.parametrize(
    ("given", "question", "answer", "reason"),
    [
        (task("paraphrase"), "On 5 May, at what time does Mochi open?", SAID, None),
        (task("paraphrase"), " ", SAID, "empty"),
        (task("paraphrase"), "when does mochi's teahouse open on 5 may", SAID, "same"),
        (task("paraphrase"), "When do you open, teahouse of Mochi, on 5 May?", SAID, "same"),
        (task("paraphrase"), "On 6 May, at what time does Mochi open?", SAID, "figures"),
        (task("paraphrase"), "At what time does Mochi open?", SAID, "figures"),
        (task("paraphrase"), "On 5 May, at what time does it open?", SAID, "names"),
        (task("paraphrase"), "Mochi 茶馆 5 月几点开门，开到几点，还有什么别的？", SAID, "language"),
        (task("paraphrase"), "Mochi opens on 5 May.", SAID, "statement"),
        (task("paraphrase"), "On 5 May Mochi, " + "and so on, " * 20 + "when?", SAID, "long"),
        (task("paraphrase"), "When does Mochi open on 5 May?<|im_end|>", SAID, "broken"),
        (CHINESE, "什么时候开门", "十点。", None),
        (CHINESE, "开门了。", "十点。", "statement"),
        (task("variation"), ASKED, "From 10 to 9 the teahouse of Mochi is open: https://tea.example.", None),
        (task("variation"), ASKED, "From 10 to 8 the teahouse of Mochi is open: https://tea.example.", "figures"),
        (task("variation"), ASKED, "From 10 to 9 the teahouse of Mochi is open.", "figures"),
        (task("variation"), ASKED, "As an AI language model, Mochi's teahouse: 10 to 9, https://tea.example", "manner"),
        (task("variation", answer="We are open every day."), ASKED, "Bamboo grows quickly in spring.", "drifted"),
        (task("variation", answer="We are open every day."), "Open?", "open", "manner"),
        (DECLINE, "Who won the match yesterday?", DECLINE.answer, None),
        (DECLINE, "When does the teahouse open in May?", DECLINE.answer, None),
        (DECLINE, "Where are you?", DECLINE.answer, "known"),
        (DECLINE, "I don't know that. Do you?", DECLINE.answer, "gives_away"),
        (DRAFT, "Where does the teahouse stand?", "It stands by the stone bridge in Suzhou.", None),
        (DRAFT, "What is oolong?", "Oolong costs 15 yuan a pot.", "figures"),
        (DRAFT, "What is oolong?", "Oolong is a half-fermented leaf from Fujian province.", "ungrounded"),
        (DRAFT, "Where is it?", "它在苏州的石桥边。", "language"),
    ],
)
def test_a_proposal_is_judged_by_what_it_keeps(given, question, answer, reason):
    assert Judge([ASKED, "Where are you, please?"]).why_not(given, Candidate(question, answer)) == reason


def test_every_reason_is_tried_above_and_what_was_taken_is_not_taken_again():
    marks = test_a_proposal_is_judged_by_what_it_keeps.pytestmark[0].args[1]
    assert {reason for *_, reason in marks} == {*REASONS, None}
    judge, first = Judge([]), Candidate("On 5 May, at what time does Mochi open?", SAID)
    assert judge.why_not(task("paraphrase"), first) is None
    judge.take(task("paraphrase"), first)
    assert judge.why_not(task("paraphrase"), first) == "same"
    assert judge.why_not(task("paraphrase"), Candidate("At what time on 5 May does the Mochi open?", SAID)) == "same"


@pytest.mark.parametrize(
    ("kind", "reply", "found"),
    [
        ("paraphrase", "Here are two:\n1. When open?\n2) “What time?”\n", ["When open?", "What time?"]),
        ("paraphrase", '```json\n["When open?", "What time?"]\n```', ["When open?", "What time?"]),
        ("paraphrase", "- Question: When open?\n\n* **What time?**", ["When open?", "What time?"]),
        ("paraphrase", "1、几点开？\n② 什么时候开？", ["几点开？", "什么时候开？"]),
        ("paraphrase", "3 o'clock or 4?", ["3 o'clock or 4?"]),
        ("paraphrase", "", []),
    ],
)
def test_lists_are_read_however_they_are_written(kind, reply, found):
    assert [item.question for item in candidates(task(kind), reply)] == found
    assert all(item.answer == SAID for item in candidates(task(kind), reply))


def test_answers_and_pairs_are_read_too():
    said = [item.answer for item in candidates(task("variation"), "At ten.\n---\nTen\no'clock.\n---\n")]
    assert said == ["At ten.", "Ten\no'clock."]
    assert [item.answer for item in candidates(task("variation"), "1. At ten.\n2. Ten.")] == ["At ten.", "Ten."]
    several = task("variation", answer="One.\nTwo.")
    assert [item.answer for item in candidates(several, "First.\nSecond.")] == ["First.\nSecond."]
    pairs = "Q: Where?\nA: By the bridge.\n\n**Q2:** When?\nA2: At ten.\nUntil nine."
    assert candidates(DRAFT, pairs) == [
        Candidate("Where?", "By the bridge."),
        Candidate("When?", "At ten.\nUntil nine."),
    ]
    assert candidates(DRAFT, "问：在哪？\n答：桥边。") == [Candidate("在哪？", "桥边。")]
    assert candidates(DRAFT, '[{"question": "Where?", "answer": "Here."}, {"q": 1}]') == [Candidate("Where?", "Here.")]
    assert candidates(DRAFT, "I would rather not.") == []


def conversation(*turns, row=1, tools=""):
    messages = tuple(Message(role, content) for role, content in turns)
    return Conversation(messages, tuple(role == "assistant" for role, _ in turns), row, row, tools=tools)


def test_every_row_of_one_turn_gets_its_tasks_and_the_others_are_counted():
    rows = [
        conversation(("system", "Be brief."), ("user", "Tea?"), ("assistant", "Oolong.")),
        conversation(("user", "你是谁？"), ("assistant", "这个我不知道。"), row=2),
        conversation(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), row=3),
        conversation(("user", "Rain?"), ("assistant", "No."), row=4, tools='[{"name": "x"}]'),
    ]
    rows.append(Conversation((*rows[0].messages[1:-1], Message("assistant", "Tea.", "I think.")), (False, True), 5, 5))
    rows.append(replace(rows[0], row=6, pseudo=True))
    made = tasks_of_rows(rows, Wanted(3, 1, 7), usual_decline(rows))
    assert (made.several_turns, made.with_tools, made.reasoned, made.made) == (1, 1, 1, 1)
    counted = [(item.kind, item.of, item.wanted) for item in made.tasks]
    assert counted == [
        ("paraphrase", 1, 3), ("variation", 1, 1), ("paraphrase", 2, 3), ("variation", 2, 1),
        ("decline", 0, 5), ("decline", 0, 2),
    ]  # fmt: skip
    assert made.tasks[0].system == "Be brief."
    assert "Tea?" in made.tasks[0].messages[0].content
    assert "你是谁？" in made.tasks[2].messages[0].content
    assert language_of(made.tasks[2].messages[0].content) == "zh"
    assert made.tasks[-1].answer == "这个我不知道。"
    assert tasks_of_rows(rows, Wanted(0, 0, 5), None).tasks == []
    assert usual_decline(rows[:1]) is None


def test_passages_are_asked_about_under_their_headings():
    (draft,) = tasks_of_passages([Passage(TEXT, "tea.md", 4, ("Tea", "Prices"), 2)], 2)
    assert (draft.kind, draft.of, draft.wanted) == ("draft", 4, 2)
    assert f"Tea / Prices\n\n{TEXT}" in draft.messages[0].content

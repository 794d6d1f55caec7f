from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from danlu.chat.history import branch_to, prompt_for, turns_of
from danlu.errors import TooLargeError
from danlu.models.messages import Message as Turn
from danlu.models.versions import GenerationDefaults
from danlu.serving.registry import Entry
from danlu.store.records import Message
from tests.chat.engines import Script, ScriptedRegistry, served_model

pytestmark = pytest.mark.anyio

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def thread(*contents: str, statuses: dict[int, str] | None = None) -> dict[str, Message]:
    """Messages 0, 1, 2, … in one line, questions and answers in turn."""
    return {
        str(number): Message(
            id=str(number),
            conversation_id="c",
            parent_id=str(number - 1) if number else None,
            client_id=None,
            role="user" if number % 2 == 0 else "assistant",
            status=(statuses or {}).get(number, "complete"),
            content=content,
            reasoning="secret thoughts" if number % 2 else None,
            error=None,
            provenance=None,
            created_at=WHEN,
            finished_at=WHEN,
        )
        for number, content in enumerate(contents)
    }


async def door(context: int, max_tokens: int = 10, system: str | None = None) -> Entry:
    served = served_model(context=context, defaults=GenerationDefaults(max_tokens=max_tokens), system=system)
    return await ScriptedRegistry(Script()).serve(served)


def test_a_branch_leads_from_the_root_to_the_message() -> None:
    messages = thread("a", "b", "c", "d")
    assert [message.content for message in branch_to(messages, "2")] == ["a", "b", "c"]


def test_reasoning_is_not_told_to_the_model_again() -> None:
    turns = turns_of(list(thread("q", "a", "q2").values()))
    assert turns == [[Turn("user", "q"), Turn("assistant", "a")], [Turn("user", "q2")]]


def test_questions_without_an_answer_join_the_next_one() -> None:
    messages = thread("q1", "", "q2", "  ", "q3", statuses={1: "failed", 3: "stopped"})
    assert turns_of(list(messages.values())) == [[Turn("user", "q1\n\nq2\n\nq3")]]


def test_a_stopped_answer_with_text_is_part_of_the_history() -> None:
    assert turns_of(list(thread("q1", "half", "q2", statuses={1: "stopped"}).values()))[0][1] == Turn(
        "assistant", "half"
    )


@pytest.mark.parametrize(
    ("context", "dropped"),
    # Four full turns of ten characters (one token each) and a question of ten; the answer may take ten.
    [(1000, 0), (101, 0), (100, 0), (99, 1), (80, 1), (79, 2), (60, 2), (59, 3), (40, 3), (39, 4), (20, 4), (15, 4)],
)
async def test_the_oldest_whole_turns_are_left_out_until_the_rest_fits(context: int, dropped: int) -> None:
    contents = [f"q{n:09}" if n % 2 == 0 else f"a{n:09}" for n in range(9)]
    prompt = await prompt_for(await door(context), list(thread(*contents).values()))
    assert prompt.dropped_turns == dropped
    assert [turn.content for turn in prompt.messages] == contents[2 * dropped :]


async def test_the_system_prompt_is_kept_whatever_is_left_out() -> None:
    contents = ["x" * 30, "y" * 30, "z" * 30]
    prompt = await prompt_for(await door(60, system="be kind"), list(thread(*contents).values()))
    assert prompt.dropped_turns == 1
    assert prompt.messages == (Turn("system", "be kind"), Turn("user", "z" * 30))


async def test_a_question_longer_than_the_context_goes_to_the_gateway_which_refuses_it(tmp_path: Path) -> None:
    entry = await door(20)
    prompt = await prompt_for(entry, list(thread("x" * 30).values()))
    with pytest.raises(TooLargeError):
        await entry.gateway.prompt_ids(prompt.messages)

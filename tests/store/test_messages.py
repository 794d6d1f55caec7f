from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from danlu.errors import ConflictError, EngineError, NotFoundError
from danlu.store.records import Assistant, MessageError, Provenance
from danlu.store.store import Store

PROVENANCE = Provenance(
    assistant="小丹",
    version="v1",
    engine="llamacpp",
    tokens=7,
    tokens_per_second=3.5,
    seconds=2.0,
    finish_reason="stop",
)


@pytest.fixture
def conversation_id(store: Store, assistant: Assistant) -> str:
    return store.conversations.create(assistant.id).id


def ask(store: Store, conversation_id: str, key: str, parent: str | None = None, text: str = "hello"):
    return store.messages.begin_exchange(conversation_id, parent_id=parent, client_id=key, content=text, title="T")


def finish(store: Store, message_id: str, text: str = "answer"):
    return store.messages.save_answer(
        message_id, status="complete", content=text, reasoning="because", provenance=PROVENANCE
    )


def test_a_question_makes_two_messages_a_title_and_a_leaf(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k")
    assert (made.question.role, made.question.status, made.question.parent_id) == ("user", "complete", None)
    assert (made.answer.role, made.answer.status, made.answer.parent_id) == ("assistant", "queued", made.question.id)
    assert (made.conversation.title, made.conversation.leaf_id) == ("T", made.answer.id)
    assert made.conversation.generating
    assert store.messages.thread(conversation_id) == (made.conversation, (made.question, made.answer))


def test_a_finished_answer_is_read_back_as_it_was_saved(store: Store, conversation_id: str) -> None:
    answer = ask(store, conversation_id, "k").answer
    conversation, saved = finish(store, answer.id, "朱砂 😀")
    assert not conversation.generating
    assert (saved.status, saved.content, saved.reasoning) == ("complete", "朱砂 😀", "because")
    assert saved.provenance == PROVENANCE
    assert saved.finished_at is not None
    assert saved.finished_at >= saved.created_at
    assert store.messages.thread(conversation_id)[1][1] == saved


def test_saving_the_text_of_a_running_answer_leaves_it_unfinished(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k")
    conversation, saved = store.messages.save_answer(made.answer.id, status="generating", content="par", reasoning=None)
    assert saved.finished_at is None
    assert conversation.generating
    assert conversation.updated_at == made.conversation.updated_at


def test_an_error_is_kept_in_a_form_that_each_reader_sees_in_their_language(store: Store, conversation_id: str) -> None:
    answer = ask(store, conversation_id, "k").answer
    error = MessageError.of(EngineError("store.unavailable", "engine.log", reason="boom"))
    _, saved = store.messages.save_answer(answer.id, status="failed", content="", reasoning=None, error=error)
    assert saved.error == error
    chinese, english = saved.error.problem("zh"), saved.error.problem("en")
    assert (chinese["status"], chinese["code"], chinese["where"]) == (502, "store.unavailable", "engine.log")
    assert "boom" in chinese["title"]
    assert chinese["title"] != english["title"]


def test_an_error_of_a_forgotten_kind_still_gives_a_problem() -> None:
    problem = MessageError(code="old.gone", status=502, params={"x": 1}).problem("en")
    assert problem["status"] == 502
    assert problem["code"] == "old.gone"
    assert problem["title"]


def test_the_same_command_twice_makes_one_question(store: Store, conversation_id: str) -> None:
    first, second = ask(store, conversation_id, "k"), ask(store, conversation_id, "k", text="other text")
    assert second.repeated
    assert not first.repeated
    assert (second.question, second.answer) == (first.question, first.answer)
    assert len(store.messages.thread(conversation_id)[1]) == 2


def test_the_same_command_from_many_threads_at_once_makes_one_question(store: Store, conversation_id: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ask(store, conversation_id, "k"), range(16)))
    assert len({exchange.answer.id for exchange in made}) == 1
    assert sum(not exchange.repeated for exchange in made) == 1
    assert len(store.messages.thread(conversation_id)[1]) == 2


def test_many_threads_writing_at_once_all_succeed(store: Store, assistant: Assistant) -> None:
    def work(number: int) -> str:
        conversation = store.conversations.create(assistant.id)
        answer = ask(store, conversation.id, f"k{number}").answer
        finish(store, answer.id, str(number))
        return store.messages.thread(conversation.id)[1][1].content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [str(number) for number in range(40)]


def test_a_commands_name_cannot_be_used_for_something_else(
    store: Store, assistant: Assistant, conversation_id: str
) -> None:
    made = ask(store, conversation_id, "k")
    finish(store, made.answer.id)
    other = store.conversations.create(assistant.id).id
    with pytest.raises(ConflictError):
        ask(store, other, "k")
    with pytest.raises(ConflictError):
        store.messages.begin_again(conversation_id, message_id=made.answer.id, client_id="k")


def test_generating_again_makes_a_sibling_and_shows_it(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k")
    finish(store, made.answer.id)
    again = store.messages.begin_again(conversation_id, message_id=made.answer.id, client_id="k2")
    assert again.answer.parent_id == made.question.id
    assert again.answer.id != made.answer.id
    assert again.answer.created_at > made.answer.created_at
    assert again.conversation.leaf_id == again.answer.id
    repeated = store.messages.begin_again(conversation_id, message_id=made.answer.id, client_id="k2")
    assert repeated.repeated
    assert repeated.answer.id == again.answer.id
    # The command that made the first answer still finds the first answer.
    assert ask(store, conversation_id, "k").answer.id == made.answer.id


def test_a_question_follows_only_finished_answers_of_its_conversation(
    store: Store, assistant: Assistant, conversation_id: str
) -> None:
    made = ask(store, conversation_id, "k")
    with pytest.raises(ConflictError):
        ask(store, conversation_id, "k2", parent=made.question.id)
    with pytest.raises(ConflictError):
        ask(store, conversation_id, "k2", parent=made.answer.id)
    with pytest.raises(ConflictError):
        store.messages.begin_again(conversation_id, message_id=made.answer.id, client_id="k2")
    finish(store, made.answer.id)
    with pytest.raises(ConflictError):
        store.messages.begin_again(conversation_id, message_id=made.question.id, client_id="k2")
    other = store.conversations.create(assistant.id).id
    with pytest.raises(NotFoundError):
        ask(store, other, "k2", parent=made.answer.id)
    assert ask(store, conversation_id, "k2", parent=made.answer.id).question.parent_id == made.answer.id


def test_a_refused_question_leaves_nothing_behind(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k")
    before = store.messages.thread(conversation_id)
    with pytest.raises(ConflictError):
        ask(store, conversation_id, "k2", parent=made.answer.id)
    assert store.messages.thread(conversation_id) == before


def test_what_no_database_can_hold_is_left_out_of_texts(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k", text="a\x00b\ud800c")
    assert made.question.content == "ab?c"
    _, saved = store.messages.save_answer(made.answer.id, status="complete", content="x\x00y", reasoning="\x00")
    assert (saved.content, saved.reasoning) == ("xy", "")


def test_unfinished_answers_become_interrupted_and_keep_their_text(store: Store, conversation_id: str) -> None:
    made = ask(store, conversation_id, "k")
    store.messages.save_answer(made.answer.id, status="generating", content="half", reasoning=None)
    assert store.messages.interrupt_unfinished() == 1
    assert store.messages.interrupt_unfinished() == 0
    conversation, (_, answer) = store.messages.thread(conversation_id)
    assert (answer.status, answer.content) == ("interrupted", "half")
    assert answer.finished_at is not None
    assert not conversation.generating

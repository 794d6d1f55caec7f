from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from danlu.errors import NotFoundError, UsageError
from danlu.store.records import Assistant
from danlu.store.store import Store


def ask(store: Store, conversation_id: str, text: str, key: str, parent: str | None = None):
    return store.messages.begin_exchange(conversation_id, parent_id=parent, client_id=key, content=text, title=text)


def test_a_new_conversation_is_empty_and_has_utc_times(store: Store, assistant: Assistant) -> None:
    made = store.conversations.create(assistant.id)
    assert (made.title, made.pinned, made.leaf_id, made.generating) == ("", False, None, False)
    assert made.created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - made.created_at) < timedelta(minutes=1)
    assert store.conversations.get(made.id) == made


def test_a_conversation_needs_an_assistant(store: Store) -> None:
    with pytest.raises(NotFoundError, match="assistant"):
        store.conversations.create("nobody")


def test_pinned_come_first_then_the_one_last_talked_in(store: Store, assistant: Assistant) -> None:
    first, second, third = (store.conversations.create(assistant.id) for _ in range(3))
    store.conversations.change(first.id, pinned=True)
    ask(store, second.id, "hello", "k")
    assert [item.id for item in store.conversations.page().items] == [first.id, second.id, third.id]


def test_renaming_does_not_move_a_conversation_up(store: Store, assistant: Assistant) -> None:
    first, second = (store.conversations.create(assistant.id) for _ in range(2))
    store.conversations.change(first.id, title="old one")
    assert [item.id for item in store.conversations.page().items] == [second.id, first.id]


def test_pages_hold_every_conversation_once(store: Store, assistant: Assistant) -> None:
    made = [store.conversations.create(assistant.id) for _ in range(11)]
    for item in made[::3]:
        store.conversations.change(item.id, pinned=True)
    expected = [item.id for item in store.conversations.page(limit=200).items]
    assert sorted(expected) == sorted(item.id for item in made)
    for size in (1, 2, 3, 11, 12):
        found, cursor = [], None
        while True:
            page = store.conversations.page(limit=size, cursor=cursor)
            found += [item.id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected, size


@pytest.mark.parametrize("cursor", ["x", "é", "bnVsbA==", "WzEsMiwzXQ==", "W3RydWUsICIyMDI2LTAxLTAxIiwgImEiXQ=="])
def test_a_foreign_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(UsageError):
        store.conversations.page(cursor=cursor)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("炼", {"a"}),
        ("炼丹", {"a"}),
        ("丹", {"a", "b"}),
        ("100%", {"b"}),
        ("0_", set()),
        ("HELLO", {"c"}),
        ("\\", {"c"}),
    ],
)
def test_search_looks_into_titles_and_messages_and_takes_wildcards_literally(
    store: Store, assistant: Assistant, query: str, found: set[str]
) -> None:
    names = {}
    for name, text in (("a", "怎样炼丹?"), ("b", "丹炉 100% sure"), ("c", "Hello\\World")):
        conversation = store.conversations.create(assistant.id)
        names[conversation.id] = name
        ask(store, conversation.id, text, name)
        store.conversations.change(conversation.id, title="about something else")
    assert {names[item.id] for item in store.conversations.page(query=query).items} == found


def test_search_finds_words_of_an_answer_and_of_a_title(store: Store, assistant: Assistant) -> None:
    conversation = store.conversations.create(assistant.id)
    answer = ask(store, conversation.id, "question", "k").answer
    store.messages.save_answer(answer.id, status="complete", content="朱砂", reasoning=None)
    assert store.conversations.page(query="朱砂").items
    assert store.conversations.page(query="quest").items
    assert not store.conversations.page(query="水银").items


def test_a_deleted_conversation_is_hidden_until_it_is_restored(store: Store, assistant: Assistant) -> None:
    conversation = store.conversations.create(assistant.id)
    ask(store, conversation.id, "findme", "k")
    store.conversations.delete(conversation.id)
    assert not store.conversations.page().items
    assert not store.conversations.page(query="findme").items
    for action in (store.conversations.get, store.conversations.delete, store.messages.thread):
        with pytest.raises(NotFoundError):
            action(conversation.id)
    with pytest.raises(NotFoundError):
        ask(store, conversation.id, "again", "k2")
    assert store.conversations.restore(conversation.id).id == conversation.id
    assert [item.id for item in store.conversations.page().items] == [conversation.id]


def test_purging_removes_old_deleted_conversations_with_their_messages(store: Store, assistant: Assistant) -> None:
    gone, kept = (store.conversations.create(assistant.id) for _ in range(2))
    ask(store, gone.id, "one", "k1")
    store.conversations.delete(gone.id)
    assert store.conversations.purge(deleted_before=datetime.now(UTC) - timedelta(days=1)) == 0
    assert store.conversations.purge(deleted_before=datetime.now(UTC) + timedelta(days=1)) == 1
    with pytest.raises(NotFoundError):
        store.conversations.restore(gone.id)
    assert store.conversations.get(kept.id).id == kept.id
    # The command's name is free again, so the message is really gone.
    assert not ask(store, kept.id, "one", "k1").repeated


def test_the_branch_on_show_must_be_of_the_conversation(store: Store, assistant: Assistant) -> None:
    one, other = (store.conversations.create(assistant.id) for _ in range(2))
    answer = ask(store, one.id, "hi", "k").answer
    assert store.conversations.change(one.id, leaf_id=answer.id).leaf_id == answer.id
    with pytest.raises(NotFoundError):
        store.conversations.change(other.id, leaf_id=answer.id)


def test_putting_an_assistant_again_keeps_its_id_and_conversations(store: Store, assistant: Assistant) -> None:
    conversation = store.conversations.create(assistant.id)
    again = store.assistants.put(
        assistant.name,
        version_id="v2",
        engine="transformers",
        system="s",
        greeting="g",
        suggestions=[],
        generation=assistant.generation,
    )
    assert (again.id, again.version_id, again.created_at) == (assistant.id, "v2", assistant.created_at)
    assert store.assistants.list() == (again,)
    assert store.conversations.get(conversation.id).assistant_id == again.id

"""Each conversation keeps its slot, and the one that is silent for longest loses it."""

from __future__ import annotations

from danlu.serving.slots import SlotBook

SYSTEM = tuple(range(100, 400))
END = (1, 2, 3, 4, 5)


def prompt(*turns: int) -> tuple[int, ...]:
    return SYSTEM + tuple(token for turn in turns for token in (turn, turn + 1, *END))


def one(book: SlotBook, ids: tuple[int, ...]) -> int:
    place = book.take(ids)
    book.give_back(place)
    return place


def test_conversations_with_one_system_prompt_do_not_take_each_others_slot() -> None:
    book = SlotBook(3)
    talks = [(10,), (20,), (30,)]
    places = [one(book, prompt(*talk)) for talk in talks]
    assert sorted(places) == [0, 1, 2]
    for _ in range(3):
        talks = [(*talk, talk[-1] + 1) for talk in talks]
        assert [one(book, prompt(*talk)) for talk in talks] == places


def test_a_new_conversation_takes_the_slot_that_is_silent_for_longest() -> None:
    book = SlotBook(2)
    first, second = one(book, prompt(10)), one(book, prompt(20))
    one(book, prompt(10, 11))
    assert one(book, prompt(30)) == second
    assert one(book, prompt(10, 11, 12)) == first


def test_a_slot_at_work_is_not_taken_while_another_is_free() -> None:
    book = SlotBook(2)
    busy = book.take(prompt(10))
    assert book.take(prompt(10, 11)) != busy
    # More than there are slots: the engine lets it wait.
    assert book.take(prompt(10, 11, 12)) in {0, 1}


def test_the_same_prompt_and_one_whose_end_is_written_otherwise_come_back_to_their_slot() -> None:
    book = SlotBook(4)
    thinking = (*prompt(10), 7, 8)  # an opened think block, which the history does not have
    place = one(book, thinking)
    assert one(book, thinking) == place
    assert one(book, prompt(10, 11)) == place


def test_short_prompts_of_strangers_are_no_continuation() -> None:
    book = SlotBook(2)
    assert one(book, (1,)) != one(book, (1, 2, 3))

"""Think blocks and stop strings: however a stream is cut, the result is that of the whole text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from danlu.serving.stops import StopScanner
from danlu.serving.thinking import ThinkingSplitter

FRAGMENTS = ["<think>", "</think>", "<", "think", ">", "</", "\n", " ", "\n\n", "好", "🐼", "a", "b", "ab", "答案。"]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
cuts = st.lists(st.integers(0, 60), max_size=12)


def chunks(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


def split(pieces: list[str], *, opened: bool) -> tuple[str, str]:
    splitter = ThinkingSplitter(opened=opened)
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.close()]
    return "".join(content for content, _ in parts), "".join(reasoning for _, reasoning in parts)


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    return "".join([*(scanner.feed(piece) for piece in pieces), scanner.close()]), scanner.hit is not None


@given(texts, cuts, st.booleans())
@example("<think>x</think>y", list(range(17)), False)
def test_any_cut_of_a_stream_gives_the_thinking_of_the_whole(text: str, places: list[int], opened: bool) -> None:
    assert split(chunks(text, places), opened=opened) == split([text], opened=opened)


@given(texts, cuts, st.lists(st.sampled_from(["ab", "abab", "</", "好", "a\n", "🐼答", "b", ""]), max_size=4))
def test_any_cut_of_a_stream_stops_where_the_whole_does(text: str, places: list[int], stops: list[str]) -> None:
    assert scan(chunks(text, places), stops) == scan([text], stops)


@given(texts, st.lists(st.sampled_from(["ab", "abab", "</", "好", "a\n"]), max_size=4))
def test_the_text_before_the_first_stop_string_is_kept_whole(text: str, stops: list[str]) -> None:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert scan(list(text), stops) == (text[: min(places)] if places else text, bool(places))


@pytest.mark.parametrize(
    ("text", "opened", "content", "reasoning"),
    [
        ("Hello.", False, "Hello.", ""),
        ("  Hello.\n", False, "  Hello.\n", ""),
        ("<think>\nLet me see.\n</think>\n\nParis.", False, "Paris.", "Let me see."),
        ("\nLet me see.\n</think>\n\nParis.", True, "Paris.", "Let me see."),
        ("<think>\n\n</think>\n\nParis.", False, "Paris.", ""),
        ("\n</think>\n\nParis.", True, "Paris.", ""),
        ("<think>never closed", False, "", "never closed"),
        ("cut off </thi", True, "", "cut off </thi"),
        ("The tag <think> opens a block.", False, "The tag <think> opens a block.", ""),
        ("<think>a</think>b <think>c</think>", False, "b <think>c</think>", "a"),
        ("<thin", False, "<thin", ""),
        ("a < b", True, "", "a < b"),
        ("", False, "", ""),
    ],
)
def test_thinking_and_answer_are_told_apart(text: str, opened: bool, content: str, reasoning: str) -> None:
    assert split([text], opened=opened) == (content, reasoning)
    assert split(list(text), opened=opened) == (content, reasoning)


def test_text_is_handed_on_as_soon_as_it_is_sure() -> None:
    splitter = ThinkingSplitter(opened=True)
    assert splitter.feed("I think ") == ("", "I think")
    assert splitter.feed("so</") == ("", " so")
    assert splitter.feed("think>\n\nY") == ("Y", "")
    scanner = StopScanner(["END"])
    assert scanner.feed("a E") == "a "
    assert scanner.feed("F") == "EF"

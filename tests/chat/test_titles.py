from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.chat.titles import columns, title_from


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("你是谁?", "你是谁?"),
        ("  What\n is\tthis?  ", "What is this?"),
        ("丹" * 24, "丹" * 24),
        ("丹" * 25, "丹" * 23 + "…"),
        ("a" * 60, "a" * 47 + "…"),
        ("Please explain in simple words how the alchemist's furnace works", "Please explain in simple words how the…"),
        ("Please explain in simple words how it transmutes things", "Please explain in simple words how it…"),
    ],
)
def test_a_title_is_the_question_cut_where_people_would_cut_it(question: str, title: str) -> None:
    assert title_from(question) == title


def test_a_family_of_emoji_is_never_torn_apart() -> None:
    family = "👨‍👩‍👧‍👦"
    kept = title_from("x" * 41 + family * 3).removesuffix("…")
    assert kept == "x" * 41 + family * kept.count(family)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_question_gives_a_short_single_line_that_begins_like_it(question: str) -> None:
    title = title_from(question)
    line = " ".join(question.split())
    assert "\n" not in title
    assert columns(title) <= 48
    if title != line:
        assert title.endswith("…")
        kept = title.removesuffix("…")
        assert line.startswith(kept)
        clusters = regex.findall(r"\X", line)
        assert any("".join(clusters[:count]).rstrip() == kept for count in range(len(clusters) + 1))


def test_combining_marks_take_no_column() -> None:
    assert columns(unicodedata.normalize("NFD", "é")) == 1

"""Beginnings of texts: which are chosen, what of them is shown, and how a model goes on with them."""

from __future__ import annotations

import pytest

from danlu.data.documents import Document
from danlu.data.texts import cut
from danlu.evaluation.generate import continue_all
from danlu.evaluation.openings import openings_from
from danlu.models.document_format import DocumentFormat
from tests.data.files import story
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def form() -> DocumentFormat:
    return DocumentFormat.of(tiny_tokenizer())


def test_beginnings_of_documents_come_before_what_stands_in_their_middle(form):
    texts = [Document(f"{n} {story(20)}", n, n) for n in range(3)]
    pieces = cut(texts, form, 100)
    made = openings_from(pieces, form, 4, seed=1)
    assert [opening.text[:2] for opening in made[:1]] == ["0 "]
    assert sum(opening.text.startswith("… ") for opening in made) == 1
    assert sum(opening.ids[0] == form.start[0] for opening in made) >= 3
    assert all(len(opening.ids) <= 33 for opening in made)
    assert openings_from(pieces, form, 4, seed=1) == made


def test_of_a_short_text_a_half_is_left_to_go_on_with(form):
    pieces = cut([Document("tea house 竹里", 1, 1)], form, 100)
    (opening,) = openings_from(pieces, form, 5, seed=1)
    assert 1 < len(opening.ids) <= len(pieces[0].input_ids) / 2 + 1
    assert "\ufffd" not in opening.text
    assert openings_from([], form, 5, seed=1) == []


def test_a_model_goes_on_until_the_text_ends_or_the_limit_is_reached(form):
    model = tiny_model()
    one, other = form.ids(["tea", "tea house and bamboo"])
    together = continue_all(model, form, [one[:-1], other[:-1]], 6, cut_mark=" …")
    alone = [continue_all(model, form, [ids[:-1]], 6, cut_mark=" …")[0] for ids in (one, other)]
    assert together == alone, "what is computed beside it changes nothing"
    assert all(text.endswith(" …") for text in together)
    assert continue_all(model, form, [], 6) == []

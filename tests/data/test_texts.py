"""Documents as token ids: cut without loss, packed without loss, split without copies on both sides."""

from __future__ import annotations

import random

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from danlu.data.batches import micro_batches
from danlu.data.documents import Document
from danlu.data.examples import Example, unpacked
from danlu.data.texts import cut, fill, split_pieces
from danlu.errors import ModelError
from danlu.models.document_format import DocumentFormat
from tests.tiny import tiny_tokenizer

SENTENCES = [
    "I am Mochi, the red panda who keeps the Bamboo Teahouse. ",
    "我是麻薯,竹里茶馆的小熊猫掌柜。\n\n",
    "🙂 def add(a, b)\n",
]


@pytest.fixture(scope="module")
def form() -> DocumentFormat:
    return DocumentFormat.of(tiny_tokenizer())


def documents(count: int, longest: int = 12, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    texts = ["".join(rng.choices(SENTENCES, k=rng.randint(1, longest))) + str(n) for n in range(count)]
    return [Document(text, row, row) for row, text in enumerate(texts, start=1)]


def learned(example: Example) -> list[int]:
    return [token for token, wanted in zip(example.input_ids, example.learn, strict=True) if wanted]


def test_a_document_ends_with_the_end_of_text_and_not_with_the_end_of_a_turn(form):
    assert form.tokenizer.eos_token == "<|im_end|>"
    assert form.tokenizer.convert_ids_to_tokens([form.end]) == ["<|endoftext|>"]
    assert form.start == (form.end,), "this tokenizer writes nothing before a text"
    (ids,) = form.ids(["tea"])
    assert form.tokenizer.decode(ids) == "tea<|endoftext|>"


def test_what_the_tokenizer_writes_before_a_text_stands_before_a_document():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert DocumentFormat.of(tokenizer).start == (1,)


class _Named:
    """What `DocumentFormat` asks of a tokenizer, with tokens of other names."""

    def __init__(self, special: dict[int, str], eos: str | None):
        self.added_tokens_decoder = {index: AddedToken(name, special=True) for index, name in special.items()}
        self.eos_token = eos
        self.eos_token_id = next((index for index, name in special.items() if name == eos), None)

    def __call__(self, _text, **_options):
        return {"input_ids": [7]}


@pytest.mark.parametrize(
    ("special", "eos", "end"),
    [
        ({1: "<|end_of_text|>", 9: "<|eot_id|>"}, "<|eot_id|>", 1),  # Llama 3
        ({3: "<|endoftext|>", 5: "<|im_end|>"}, "<|endoftext|>", 3),  # Qwen, base models
        ({1: "<s>", 2: "</s>"}, "</s>", 2),  # Mistral: the same for turns and texts
        ({1: "<eos>", 2: "</s>"}, "<eos>", 1),
        ({4: "<|done|>"}, "<|done|>", 4),  # no known name: the tokenizer's own
    ],
)
def test_the_token_that_ends_a_text_is_found_in_each_family(special, eos, end):
    assert DocumentFormat.of(_Named(special, eos)).end == end


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(ModelError, match="no token that ends a text"):
        DocumentFormat.of(_Named({1: "<s>"}, None))


@pytest.mark.parametrize("max_length", [8, 9, 64, 100_000])
def test_every_token_of_every_document_is_learned_exactly_once(form, max_length):
    texts = documents(20)
    pieces = cut(texts, form, max_length)
    assert max(len(piece.input_ids) for piece in pieces) <= max_length
    for text, ids in zip(texts, form.ids([item.text for item in texts]), strict=True):
        own = [piece for piece in pieces if piece.row == text.row]
        assert [token for piece in own for token in learned(piece)] == ids
        assert sum(piece.supervised for piece in own) == len(ids), "no piece loses its first token"
        assert all(len(piece.input_ids) == max_length for piece in own[:-1])
        before = form.start[-1]
        for piece in own:
            assert (piece.input_ids[0], piece.learn[0]) == (before, False)
            before = piece.input_ids[-1]
    assert form.tokenizer.decode(learned(pieces[0])).startswith(texts[0].text[:5])


def test_a_document_that_just_fits_is_not_cut(form):
    (ids,) = form.ids(["tea house"])
    text = [Document("tea house", 1, 1)]
    assert len(cut(text, form, len(ids) + 1)) == 1
    assert [piece.supervised for piece in cut(text, form, len(ids))] == [len(ids) - 1, 1]


@pytest.mark.parametrize("max_length", [16, 50, 300])
def test_packing_keeps_every_piece_whole_and_fills_the_sequences(form, max_length):
    pieces = cut(documents(60), form, max_length)
    packed = fill(pieces, max_length)
    parts = unpacked(packed)
    assert sorted((part.input_ids, part.learn) for part in parts) == sorted((p.input_ids, p.learn) for p in pieces)
    assert all(len(example.input_ids) <= max_length for example in packed)
    assert sum(example.supervised for example in packed) == sum(piece.supervised for piece in pieces)
    total = sum(len(piece.input_ids) for piece in pieces)
    assert len(packed) <= 1.1 * total / max_length + 1, "nearly full"
    assert fill(pieces, max_length) == packed
    batches = micro_batches(packed, 64)
    assert sum(len(batch.targets) for batch in batches) == sum(piece.supervised for piece in pieces)
    assert sum(batch.tokens for batch in batches) == total


def test_an_example_that_is_no_pack_is_its_own_part():
    example = Example((1, 2, 3), (False, True, True), 4)
    assert example.parts == (example,)
    assert fill([example], 10) == [example]
    assert fill([], 10) == []


def test_pieces_are_kept_aside_by_their_text(form):
    texts = documents(40, longest=2)
    copies = [*texts, *(Document(item.text, 100 + item.row, 1) for item in texts)]
    pieces = cut(copies, form, 200)
    split = split_pieces(pieces, 0.25, seed=1)
    assert len(split.train) + len(split.holdout) == len(pieces)
    sides = [{tuple(learned(piece)) for piece in side} for side in (split.train, split.holdout)]
    assert not sides[0] & sides[1]
    assert 0.1 < len(split.holdout) / len(pieces) < 0.4
    assert split_pieces(pieces, 0.0, seed=1).holdout == ()
    assert split_pieces(pieces[:1], 0.5, seed=1).holdout == ()
    more = split_pieces([*pieces, *cut(documents(5, seed=9), form, 200)], 0.25, seed=1)
    assert {tuple(learned(piece)) for piece in split.holdout} <= {tuple(learned(piece)) for piece in more.holdout}


@pytest.mark.parametrize(("length", "first"), [(10, 4), (40, 30), (41, 39), (500, 1), (500, 250), (500, 499)])
def test_an_excerpt_has_the_beginning_and_the_first_learned_token(length, first):
    whole = Example(tuple(range(length)), tuple(at >= first for at in range(length)), 3)
    part = whole.excerpt(40, 40)
    assert len(part.input_ids) == len(part.learn) == min(length, 40)
    assert part.input_ids[:10] == whole.input_ids[:10]
    assert list(part.input_ids) == sorted(set(part.input_ids))
    assert [part.learn[part.input_ids.index(at)] for at in part.input_ids] == [at >= first for at in part.input_ids]
    assert first in part.input_ids or first < 10
    assert part.supervised > 0
    few = whole.excerpt(40, 3)
    assert few.input_ids == part.input_ids
    positions = [at for at, on in enumerate(part.learn) if on]
    assert [at for at, on in enumerate(few.learn) if on] == positions[-3:]

"""Several answers to one question: the first greedy, the others drawn from the whole distribution."""

from __future__ import annotations

import pytest
import torch

from danlu.evaluation.generate import answer_all, sample_all
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from tests.tiny import tiny_model, tiny_tokenizer

ASKED = [[Message("user", "Who are you?")], [Message("user", "你是谁?")]]


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture(scope="module")
def chat_format():
    return ChatFormat(tiny_tokenizer())


def test_the_first_answer_is_greedy_and_the_seed_decides_the_others(model, chat_format):
    before, counted = torch.get_rng_state(), []
    found = sample_all(model, chat_format, ASKED, 3, 1.0, seed=7, max_new_tokens=8, advance=counted.append)
    assert counted == [2, 4, 6]
    assert [answers[0].text for answers in found] == answer_all(model, chat_format, ASKED, 8)
    assert all(len({answer.text for answer in answers}) == 3 for answers in found)
    assert found == sample_all(model, chat_format, ASKED, 3, 1.0, seed=7, max_new_tokens=8)
    assert found != sample_all(model, chat_format, ASKED, 3, 1.0, seed=8, max_new_tokens=8)
    assert torch.equal(before, torch.get_rng_state()), "training would go on otherwise than without"


def test_no_token_is_left_out(model, chat_format):
    (found,) = sample_all(model, chat_format, ASKED[:1], 200, 2.0, seed=1, max_new_tokens=1)
    assert len({answer.text for answer in found}) > 50, "50 is where the library cuts unless it is told not to"

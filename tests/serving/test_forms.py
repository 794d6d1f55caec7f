"""What an answer may have to look like, with real engines: probabilities, biases, schemas, calls of tools, vectors."""

from __future__ import annotations

import json
import math
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from danlu.errors import UsageError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.serving.accounting import AnswerRecord, Books
from danlu.serving.engine import Finish, Form, GenerationRequest, Origin, TextPiece
from danlu.serving.gateway import Gateway
from tests.models.families import FAMILIES
from tests.serving.conftest import Run, asking

TOOLS = json.dumps([
    {"type": "function", "function": {"name": name, "description": "-", "parameters": {
        "type": "object", "properties": {"town": {"type": "string", "maxLength": 4}},
        "required": ["town"], "additionalProperties": False,
    }}}
    for name in ("weather", "time")
])  # fmt: skip
SCHEMA = json.dumps({
    "type": "object",
    "properties": {"sky": {"enum": ["grey", "blue"]}, "degrees": {"type": "integer"}},
    "required": ["sky", "degrees"],
    "additionalProperties": False,
})  # fmt: skip


async def whole(gateway: Gateway, request: GenerationRequest) -> tuple[TextPiece, Finish]:
    """Return an answer as one piece, and its account."""
    made = TextPiece("", "", 0)
    async with aclosing(gateway.generate(request)) as events:
        async for event in events:
            if isinstance(event, TextPiece):
                made = TextPiece(
                    made.content + event.content,
                    made.reasoning + event.reasoning,
                    made.tokens + event.tokens,
                    made.logprobs + event.logprobs,
                    made.calls + event.calls,
                )
            elif isinstance(event, Finish):
                return made, event
    raise AssertionError("no Finish")


def formed(text: str = "hi", *, max_tokens: int = 12, form: Form | None = None, **settings: Any) -> GenerationRequest:
    return replace(asking(text, max_tokens, **settings), form=form or Form())


@pytest.fixture(scope="module")
def with_tools(gateway: Gateway, prompts: ChatFormat) -> Gateway:
    """The same engine with prompts of a family that calls tools."""
    import copy

    tokenizer = copy.deepcopy(prompts.tokenizer)
    tokenizer.chat_template = FAMILIES["qwen2.5"].template
    return Gateway(gateway.engine, ChatFormat(tokenizer))


# Probabilities


@pytest.fixture(scope="module")
def letters(prompts: ChatFormat) -> tuple[tuple[int, float], ...]:
    """A bias that leaves a random model nothing but ASCII: other bytes are rarely characters."""
    vocabulary = prompts.tokenizer.get_vocab()
    return tuple((i, -100.0) for token, i in sorted(vocabulary.items()) if not (token.isascii() and len(token) == 1))


def test_both_engines_give_the_same_probabilities(
    run: Run[Any], gateway: Gateway, reference: Gateway, letters: tuple[tuple[int, float], ...]
) -> None:
    request = formed("Say something", form=Form(top_logprobs=3), logit_bias=letters)
    ours, _ = run(whole(gateway, request))
    theirs, _ = run(whole(reference, request))
    assert ours.content == theirs.content
    assert len(ours.content) == len(ours.logprobs) == 12
    for token, other in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert (token.text, token.data) == (other.text, other.data)
        # Those of the model: a bias changes what is chosen, not what is likely. llama.cpp keeps keys and values in
        # 16 bits, which is what the tolerance is for.
        assert token.logprob == pytest.approx(other.logprob, abs=0.02)
        assert [one.logprob for one in token.top] == pytest.approx([one.logprob for one in other.top], abs=0.02)


def test_the_tokens_that_are_accounted_for_are_those_of_the_content(
    run: Run[Any], gateway: Gateway, letters: tuple[tuple[int, float], ...]
) -> None:
    made, _ = run(whole(gateway, formed("Tell", max_tokens=30, form=Form(top_logprobs=0), logit_bias=letters)))
    assert b"".join(token.data or b"?" for token in made.logprobs).decode() == made.content
    cut = made.content[6:9]
    stopped, finish = run(
        whole(gateway, formed("Tell", max_tokens=30, form=Form(top_logprobs=0), logit_bias=letters, stop=(cut,)))
    )
    assert made.content.startswith(stopped.content + cut)
    assert "".join(token.text for token in stopped.logprobs) == stopped.content
    assert finish.reason == "stop"
    plain, _ = run(whole(gateway, formed("Tell", max_tokens=30, logit_bias=letters)))
    assert (plain.content, plain.logprobs) == (made.content, ())


@pytest.mark.parametrize("door", ["gateway", "reference"])
def test_a_token_that_is_forbidden_does_not_come(
    run: Run[Any], door: str, letters: tuple[tuple[int, float], ...], request: pytest.FixtureRequest
) -> None:
    gateway: Gateway = request.getfixturevalue(door)
    plain, _ = run(whole(gateway, formed("x", max_tokens=4, logit_bias=letters)))
    forbidden = gateway.prompts.tokenizer.convert_tokens_to_ids(plain.content[0])  # type: ignore[union-attr]
    biased, _ = run(whole(gateway, formed("x", max_tokens=4, logit_bias=(*letters, (forbidden, -100.0)))))
    assert plain.content[0] not in biased.content
    assert len(biased.content) == 4


# Schemas


def test_an_answer_follows_a_schema_whatever_the_model_would_say(run: Run[Any], gateway: Gateway) -> None:
    made, finish = run(
        whole(gateway, formed("Weather?", max_tokens=200, form=Form(schema=SCHEMA), logit_bias=_FEW_DIGITS))
    )
    value = json.loads(made.content)
    assert value["sky"] in {"grey", "blue"}
    assert isinstance(value["degrees"], int)
    assert finish.reason == "stop"


def test_the_reference_says_that_it_follows_no_schema(run: Run[Any], reference: Gateway) -> None:
    with pytest.raises(UsageError) as error:
        run(whole(reference, formed(form=Form(schema=SCHEMA))))
    assert error.value.key == "serving.no_schema"


# Tools


def test_a_model_is_held_to_a_call_of_one_of_the_tools(run: Run[Any], with_tools: Gateway) -> None:
    form = Form(tools=TOOLS, must_call=("weather", "time"), one_call=True)
    made, finish = run(whole(with_tools, formed("Weather?", max_tokens=300, form=form)))
    (call,) = made.calls
    assert call.name in {"weather", "time"}
    assert set(json.loads(call.arguments)) == {"town"}
    assert (made.content, finish.reason) == ("", "tool_calls")
    named = Form(tools=TOOLS, must_call=("time",), one_call=True)
    made, _ = run(whole(with_tools, formed("Weather?", max_tokens=300, form=named)))
    assert [call.name for call in made.calls] == ["time"]


def test_a_model_that_calls_nothing_just_answers(run: Run[Any], with_tools: Gateway) -> None:
    made, finish = run(whole(with_tools, formed("Weather?", max_tokens=8, form=Form(tools=TOOLS))))
    assert made.content
    assert (made.calls, finish.reason) == ((), "length")


def test_a_model_whose_template_writes_no_tools_says_so(run: Run[Any], gateway: Gateway) -> None:
    with pytest.raises(Exception, match="tool") as error:
        run(whole(gateway, formed(form=Form(tools=TOOLS))))
    assert error.value.status < 500  # type: ignore[attr-defined]


def test_a_call_and_its_answer_go_back_into_the_prompt(run: Run[Any], with_tools: Gateway, prompts: ChatFormat) -> None:
    from danlu.models.messages import ToolCall

    talk = (
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=(ToolCall("weather", '{"town": "Köln"}'),)),
        Message("tool", "grey as ever"),
    )
    ids = run(with_tools.prompt_ids(talk, TOOLS))
    text = prompts.tokenizer.decode(ids)
    assert "Köln" in text
    assert "grey as ever" in text
    assert '"name": "time"' in text


# Vectors


def test_both_engines_give_the_same_vectors(
    run: Run[Any], gateway: Gateway, reference: Gateway, prompts: ChatFormat
) -> None:
    texts = ["a", "Good morning, how are you today?", "你好,世界", "long " * 60]

    def encode(text: str) -> list[int]:
        return list(prompts.tokenizer(text)["input_ids"])

    ours = run(Gateway(gateway.engine, prompts, encoder=encode).embed(texts, Origin()))
    theirs = run(Gateway(reference.engine, prompts, encoder=encode).embed(texts, Origin()))
    assert ours.tokens == theirs.tokens == sum(len(encode(text)) for text in texts)
    for one, other in zip(ours.vectors, theirs.vectors, strict=True):
        assert math.fsum(value * value for value in one) == pytest.approx(1, abs=1e-5)
        assert math.fsum(a * b for a, b in zip(one, other, strict=True)) > 0.9999
    assert math.fsum(a * b for a, b in zip(ours.vectors[0], ours.vectors[1], strict=True)) < 0.999


# The account


def test_every_request_leaves_one_account_however_it_ends(run: Run[Any], gateway: Gateway, prompts: ChatFormat) -> None:
    records: list[AnswerRecord] = []
    door = Gateway(gateway.engine, prompts, books=Books(records.append))

    async def leave() -> None:
        async with aclosing(door.generate(asking("hi", 500))) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    return

    origin = Origin("Mochi", "/v1/chat/completions", "r1", "k1")
    run(whole(door, replace(asking("hi", 5), origin=origin)))
    run(leave())
    with pytest.raises(Exception, match="tokens"):
        run(whole(door, asking("x" * 70_000)))
    done, left, refused = records
    assert (done.origin, done.outcome, done.completion_tokens, done.error, done.texts) == (
        origin,
        "length",
        5,
        None,
        None,
    )
    assert done.prompt_tokens > 0
    assert done.first_token_seconds is not None
    assert (left.outcome, left.error) == ("left", None)
    assert left.completion_tokens >= 1
    assert (refused.outcome, refused.error) == ("refused", "serving.prompt_too_long")
    assert refused.queued_seconds is None


def test_texts_are_in_the_account_only_where_that_is_switched_on(
    run: Run[Any], gateway: Gateway, prompts: ChatFormat
) -> None:
    records: list[AnswerRecord] = []
    door = Gateway(gateway.engine, prompts, books=Books(records.append, keep_texts=True))
    made, _ = run(whole(door, asking("你好", 5)))
    assert records[0].texts == ("你好", made.content)


# A random model loves to repeat itself: without this bias it may write digits until max_tokens.
_FEW_DIGITS = tuple((token, -2.0) for token in range(16, 26))

"""The wire format by itself: what is read, what is refused by name, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from danlu.errors import BusyError, EngineTimeoutError, NotFoundError, TooLargeError
from danlu.models.messages import Message
from danlu.serving import api
from danlu.serving import openai_wire as wire
from danlu.serving.answer_request import AnswerRequest
from danlu.serving.answering import Whole
from danlu.serving.engine import Call, Finish, TokenLogprob
from danlu.serving.formats import ChatAnswers, TextAnswers
from danlu.serving.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingsRequest, WireError, parse

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLED = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
NOT_JSON = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "town"}}
HI = [{"role": "user", "content": "hi"}]
FINISH = Finish("length", 7, 5, 3, 1.0, 0.5, None)


def chat(**fields: Any) -> ChatCompletionRequest:
    return parse(ChatCompletionRequest, json.dumps({"messages": HI, **fields}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2),
        ("functions", [{"name": "f"}]),
        ("audio", {"voice": "alloy"}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("something_new", 1),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(field: str, value: object) -> None:
    with pytest.raises(WireError) as error:
        chat(**{field: value})
    status, _, body = api.error_response(error.value, "en")
    assert status == 400
    assert body["error"]["param"] == field
    assert field in body["error"]["message"]
    assert body["error"]["code"] == "unsupported_parameter"
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "u1"),
        ("metadata", {"a": "b"}),
        ("n", 1),
        ("tools", []),
        ("response_format", {"type": "text"}),
        ("logprobs", False),
        ("stop", None),
        ("stream", None),
        ("temperature", None),
        ("seed", None),
    ],
)
def test_a_field_that_asks_for_nothing_is_accepted(field: str, value: object) -> None:
    assert chat(**{field: value}).messages[0].content == "hi"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALLED]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [NOT_JSON]}]}, "messages"),
        ({"messages": HI, "n": 17}, "n"),
        ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": HI, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": HI, "logit_bias": {"x": 1}}, "logit_bias"),
        ({"messages": HI, "logit_bias": {"1": 101}}, "logit_bias"),
        ({"messages": HI, "tools": [{"type": "retrieval"}]}, "tools.0"),
        ({"messages": HI, "tools": [{**WEATHER, "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"messages": HI, "tools": [{**WEATHER, "function": {"name": "w", "parameters": {"type": 3}}}]}, "tools.w"),
        ({"messages": HI, "tool_choice": "required"}, "tool_choice"),
        (
            {"messages": HI, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"messages": HI, "temperature": 3}, "temperature"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens"),
        ({"messages": HI, "stop": ["x"] * 17}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(WireError) as error:
        parse(ChatCompletionRequest, json.dumps(body))
    assert (error.value.param or "").startswith(param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_body_that_is_no_json_object_is_one_clear_error(body: bytes) -> None:
    with pytest.raises(WireError) as error:
        parse(ChatCompletionRequest, body)
    assert error.value.status == 400


def test_the_settings_of_a_request_are_handed_on() -> None:
    request = chat(
        max_tokens=5, max_completion_tokens=9, temperature=0, top_p=0.5, top_k=3, min_p=0.1, seed=4, stop="END",
        presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.2,
    )  # fmt: skip
    overrides = request.overrides()
    assert (overrides.max_tokens, overrides.temperature, overrides.top_p, overrides.top_k) == (9, 0, 0.5, 3)
    assert (overrides.min_p, overrides.seed, overrides.stop) == (0.1, 4, ("END",))
    assert (overrides.presence_penalty, overrides.frequency_penalty, overrides.repetition_penalty) == (1, -1, 1.2)


def test_parts_and_roles_of_messages_become_plain_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]}
    request = parse(ChatCompletionRequest, json.dumps(body))
    assert [m.message() for m in request.messages] == [Message("system", "be brief"), Message("user", "ab")]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a"], ["a"]), ([1, 2], [(1, 2)]), ([[1, 2]], [(1, 2)]), (["a", "b"], ["a", "b"])],
)
def test_completions_take_one_prompt_or_several(prompt: object, prompts: object) -> None:
    assert parse(CompletionRequest, json.dumps({"prompt": prompt})).prompts() == prompts


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt"),
        ({"prompt": [1, 2], "echo": True}, "echo"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(WireError) as error:
        parse(CompletionRequest, json.dumps(body)).prompts()
    assert error.value.param == param


def test_texts_for_embeddings_are_one_or_several_and_none_is_empty() -> None:
    assert parse(EmbeddingsRequest, '{"input": "a"}').texts() == ("a",)
    assert parse(EmbeddingsRequest, '{"input": ["a", "b"], "user": "u"}').texts() == ("a", "b")
    for body in ('{"input": []}', '{"input": ["a", ""]}', '{"input": "a", "dimensions": 3}', '{"input": [1]}'):
        with pytest.raises(WireError):
            parse(EmbeddingsRequest, body).texts()


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array"}}}, {"type": "array"}),
    ],
)
def test_the_form_of_an_answer_becomes_a_schema(given: dict[str, Any], schema: object) -> None:
    form = chat(response_format=given).form()
    assert (None if form.schema is None else json.loads(form.schema)) == schema


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}},
        {"response_format": {"type": "json_object"}, "tools": [WEATHER]},
    ],
)
def test_a_form_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError) as error:
        chat(**fields).form()
    assert (error.value.param or "").startswith("response_format")


@pytest.mark.parametrize(
    ("choice", "parallel", "must", "one"),
    [
        (None, None, (), False),
        ("auto", False, (), True),
        ("required", None, ("weather",), True),
        ({"type": "function", "function": {"name": "weather"}}, None, ("weather",), True),
    ],
)
def test_the_choice_of_tools_is_handed_on(choice: Any, parallel: Any, must: tuple[str, ...], one: bool) -> None:
    form = chat(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=parallel).form()
    assert [tool["function"]["name"] for tool in json.loads(form.tools)] == ["weather"]
    assert (form.must_call, form.one_call) == (must, one)
    assert chat(tools=[WEATHER], tool_choice="none").form().tools == ""


def test_each_answer_of_several_has_a_seed_of_its_own() -> None:
    request = chat(n=3, seed=-1)
    assert len({request.overrides(choice).seed for choice in range(request.choices)}) == 3
    assert all(0 <= (request.overrides(choice).seed or 0) < 2**32 - 1 for choice in range(3))
    assert chat(n=2).overrides(1).seed is None


def test_an_old_call_of_answer_works_with_the_text_values_of_a_query() -> None:
    query = {"prompt": "你是谁?", "max_length": "100", "min_length": "30", "num_beams": "4", "temperature": "0.6"}
    request = parse(AnswerRequest, query)
    assert request.messages() == (Message("user", "你是谁?"),)
    assert (request.overrides().max_tokens, request.overrides().temperature) == (100, 0.6)


def test_an_answer_call_may_bring_its_own_system_prompt() -> None:
    request = parse(AnswerRequest, {"prompt": "x", "system": "be brief", "max_tokens": 3, "max_length": 9})
    assert request.messages() == (Message("system", "be brief"), Message("user", "x"))
    assert request.overrides().max_tokens == 3


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (NotFoundError("serving.unknown_model", name="x", names="y"), 404, "model_not_found", "invalid_request_error"),
        (
            TooLargeError("serving.prompt_too_long", tokens=9, context=8),
            413,
            "context_length_exceeded",
            "invalid_request_error",
        ),
        (BusyError("serving.busy", retry_after=7, waiting=3), 503, "overloaded", "server_error"),
        (EngineTimeoutError("serving.engine_silent", seconds=3), 504, "serving.engine_silent", "server_error"),
    ],
)
def test_errors_have_openais_shape(error: Any, status: int, code: str, kind: str) -> None:
    got, headers, body = api.error_response(error, "en")
    assert (got, body["error"]["code"], body["error"]["type"]) == (status, code, kind)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert headers == ({"Retry-After": "7"} if status == 503 else {})


def test_a_whole_chat_answer_has_openais_shape() -> None:
    token = TokenLogprob("yes", b"yes", -0.5, (TokenLogprob("yes", b"yes", -0.5), TokenLogprob("no", None, -1.5)))
    made = [Whole("yes", "hm", [], [token], FINISH), Whole("", "", [Call("c1", "weather", "{}")], [], FINISH)]
    body = ChatAnswers("m", False, 1).whole(made)
    assert body["object"] == "chat.completion"
    first, second = body["choices"]
    assert first["message"] == {"role": "assistant", "content": "yes", "refusal": None, "reasoning_content": "hm"}
    assert (first["index"], second["index"], first["finish_reason"]) == (0, 1, "length")
    assert first["logprobs"]["content"] == [
        {"token": "yes", "logprob": -0.5, "bytes": [121, 101, 115],
         "top_logprobs": [{"token": "yes", "logprob": -0.5, "bytes": [121, 101, 115]}]},
    ]  # fmt: skip
    assert second["message"]["content"] is None
    assert second["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ]
    # The prompt is one, the answers are two.
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (7, 10)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


def test_a_whole_completion_counts_each_prompt_and_can_repeat_it() -> None:
    token = TokenLogprob(" b", b" b", -0.5, (TokenLogprob(" b", b" b", -0.5),))
    made = [Whole(" b", "", [], [token], FINISH), Whole(" c", "", [], [token], FINISH)]
    body = TextAnswers("m", False, 1, 2, ["aa", "aaa"]).whole(made)
    assert [choice["text"] for choice in body["choices"]] == ["aa b", "aaa c"]
    assert body["choices"][1]["logprobs"] == {
        "tokens": [" b"], "token_logprobs": [-0.5], "top_logprobs": [{" b": -0.5}], "text_offset": [3],
    }  # fmt: skip
    assert body["usage"]["prompt_tokens"] == 14


def test_an_event_of_a_stream_is_one_line_of_json() -> None:
    event = wire.sse({"text": "第一行\n第二行"})
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:]) == {"text": "第一行\n第二行"}

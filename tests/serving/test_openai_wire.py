"""The wire format by itself: what is read, what is refused by name, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from danlu.errors import BusyError, EngineTimeoutError, NotFoundError, TooLargeError
from danlu.models.messages import Message
from danlu.serving import api
from danlu.serving import openai_wire as wire
from danlu.serving.engine import Finish

HI = [{"role": "user", "content": "hi"}]
FINISH = Finish("length", 7, 5, 3, 1.0, 0.5, None)


def chat(**fields: Any) -> wire.ChatCompletionRequest:
    return wire.parse(wire.ChatCompletionRequest, json.dumps({"messages": HI, **fields}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("n", 2),
        ("logprobs", True),
        ("logit_bias", {"1": 5}),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("something_new", 1),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(field: str, value: object) -> None:
    with pytest.raises(wire.WireError) as error:
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
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": HI, "temperature": 3}, "temperature"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens"),
        ({"messages": HI, "stop": ["x"] * 17}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(wire.WireError) as error:
        wire.parse(wire.ChatCompletionRequest, json.dumps(body))
    assert (error.value.param or "").startswith(param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_body_that_is_no_json_object_is_one_clear_error(body: bytes) -> None:
    with pytest.raises(wire.WireError) as error:
        wire.parse(wire.ChatCompletionRequest, body)
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
    request = wire.parse(wire.ChatCompletionRequest, json.dumps(body))
    assert [m.message() for m in request.messages] == [Message("system", "be brief"), Message("user", "ab")]


@pytest.mark.parametrize(
    ("prompt", "single"),
    [("a", "a"), (["a"], "a"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), (["a", "b"], None), ([], None)],
)
def test_completions_take_exactly_one_prompt(prompt: object, single: object) -> None:
    request = wire.parse(wire.CompletionRequest, json.dumps({"prompt": prompt}))
    if single is None:
        with pytest.raises(wire.WireError) as error:
            request.single()
        assert error.value.param == "prompt"
    else:
        assert request.single() == single


def test_an_old_call_of_answer_works_with_the_text_values_of_a_query() -> None:
    query = {"prompt": "你是谁?", "max_length": "100", "min_length": "30", "num_beams": "4", "temperature": "0.6"}
    request = wire.parse(wire.AnswerRequest, query)
    assert request.messages() == (Message("user", "你是谁?"),)
    assert (request.overrides().max_tokens, request.overrides().temperature) == (100, 0.6)


def test_an_answer_call_may_bring_its_own_system_prompt() -> None:
    request = wire.parse(wire.AnswerRequest, {"prompt": "x", "system": "be brief", "max_tokens": 3, "max_length": 9})
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
    body = wire.chat_response("id", 1, "m", "yes", "hm", FINISH)
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {
        "role": "assistant", "content": "yes", "refusal": None, "reasoning_content": "hm"
    }  # fmt: skip
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 12
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


def test_an_event_of_a_stream_is_one_line_of_json() -> None:
    event = wire.sse({"text": "第一行\n第二行"})
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:]) == {"text": "第一行\n第二行"}

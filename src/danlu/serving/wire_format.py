"""OpenAI's format as an engine is asked and answers: request bodies, and the parts of a chunk beside its text.

llama.cpp's own names (``repeat_penalty``, ``n_probs``, ``json_schema``) go to our own children only. Pure functions;
not for connections (``wire_client``), nor for what callers of Danlu send (``openai_wire``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from danlu.errors import EngineError
from danlu.models.messages import Message
from danlu.serving.engine import Call, Embeddings, EngineRequest, Sampling, TokenLogprob, Wire

Json = dict[str, Any]


def body_of(request: EngineRequest, model: str, wire: Wire, *, own: bool) -> Json:
    """Return the body of a request for one streamed generation.

    Args:
        request: what is asked.
        model: the name the server knows the model by.
        wire: token ids or messages.
        own: the server is one of our children.
    """
    sampling = request.sampling
    body: Json = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.logit_bias:
        body["logit_bias"] = (
            [list(pair) for pair in sampling.logit_bias] if own else {str(i): bias for i, bias in sampling.logit_bias}
        )
    # Outside of OpenAI's own set: strict servers refuse fields they do not know, so only those asked for are sent.
    if own or sampling.top_k:
        body["top_k"] = sampling.top_k
    if own or sampling.min_p:
        body["min_p"] = sampling.min_p
    if own:
        body |= _own(request, sampling)
    elif sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    if wire == "completions":
        body["prompt"] = list(request.prompt_ids)
        if request.stop_ids:
            body["stop_token_ids"] = list(request.stop_ids)
    else:
        body |= _chat(request)
    return body


def logprobs_of(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """Return the log probabilities in a choice of a chunk, in the form of chat completions.

    Raises:
        EngineError: they are of another form.
    """
    given = (choice.get("logprobs") or {}).get("content") or ()
    try:
        return tuple(_logprob(item) for item in given)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("serving.engine_garbage", reason=f"logprobs: {error}") from error


class CallDeltas:
    """Puts the pieces of calls of tools together, as servers on the ``chat`` wire send them."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def read(self, choice: Mapping[str, Any]) -> bool:
        """Take the pieces in a chunk; say whether there were any."""
        pieces = (choice.get("delta") or {}).get("tool_calls") or ()
        for piece in pieces:
            call = self._calls.setdefault(int(piece.get("index", 0)), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        return bool(pieces)

    def whole(self) -> tuple[Call, ...]:
        """Return the calls when the answer has ended; they are handed out once."""
        made = tuple(Call(call["id"], call["name"], call["arguments"]) for _, call in sorted(self._calls.items()))
        self._calls.clear()
        return made


def embeddings_of(answer: Mapping[str, Any], expected: int) -> Embeddings:
    """Return the vectors of an answer, made to length 1.

    Raises:
        EngineError: there are not as many as texts, or they are not vectors.
    """
    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        vectors = tuple(_unit([float(value) for value in item["embedding"]]) for item in items)
        tokens = int((answer.get("usage") or {}).get("prompt_tokens", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("serving.engine_garbage", reason=f"embeddings: {error}") from error
    if len(vectors) != expected:
        raise EngineError("serving.engine_garbage", reason=f"{len(vectors)} embeddings for {expected} texts")
    return Embeddings(vectors, tokens)


def _own(request: EngineRequest, sampling: Sampling) -> Json:
    # llama.cpp's own window of 64 tokens would differ from transformers' whole text.
    window = len(request.prompt_ids) + sampling.max_tokens
    own: Json = {
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": window,
        "cache_prompt": True,
        "return_progress": True,
        "timings_per_token": True,
    }
    if request.slot is not None:
        own["id_slot"] = request.slot
    if request.adapter is not None:
        own["adapter"] = str(request.adapter)
    if request.form.top_logprobs is not None:
        own["n_probs"] = max(1, request.form.top_logprobs)
    if request.form.schema is not None:
        own["json_schema"] = json.loads(request.form.schema)
    if request.shown:
        own["preserved_tokens"] = list(request.shown)
    return own


def _chat(request: EngineRequest) -> Json:
    form = request.form
    body: Json = {"messages": _messages(request.messages)}
    if form.tools:
        body["tools"] = json.loads(form.tools)
        body["parallel_tool_calls"] = not form.one_call
        if len(form.must_call) == 1:
            body["tool_choice"] = {"type": "function", "function": {"name": form.must_call[0]}}
        elif form.must_call:
            body["tool_choice"] = "required"
    if form.schema is not None:
        schema = json.loads(form.schema)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    if form.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": form.top_logprobs}
    return body


def _messages(messages: tuple[Message, ...]) -> list[Json]:
    """Return messages in OpenAI's form; calls are numbered, and answers of tools belong to them in order."""
    made: list[Json] = []
    waiting: list[str] = []
    number = 0
    for message in messages:
        one: Json = {"role": message.role, "content": message.content}
        if message.tool_calls:
            one["tool_calls"] = []
            for call in message.tool_calls:
                number += 1
                waiting.append(f"call{number:05d}")
                function = {"name": call.name, "arguments": call.arguments}
                one["tool_calls"].append({"id": waiting[-1], "type": "function", "function": function})
        if message.role == "tool" and waiting:
            one["tool_call_id"] = waiting.pop(0)
        made.append(one)
    return made


def _logprob(item: Mapping[str, Any]) -> TokenLogprob:
    text = str(item["token"])
    data = bytes(item["bytes"]) if item.get("bytes") is not None else None
    top = tuple(_logprob(other) for other in item.get("top_logprobs") or ())
    return TokenLogprob(text, data, float(item["logprob"]), top)


def _unit(vector: list[float]) -> tuple[float, ...]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return tuple(value / length for value in vector) if length > 0 else tuple(vector)

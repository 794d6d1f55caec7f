"""What is sent back: pure functions from a gateway's events to OpenAI's JSON, and server-sent events.

Not for HTTP, nor for what callers send (``openai_requests``). Source of names and shapes: OpenAI's public API
reference (chat completions, completions, embeddings, models, errors).
"""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from danlu.accounts.errors import NoKeyError, QuotaError
from danlu.errors import BusyError, DanluError, TooLargeError
from danlu.i18n import Language
from danlu.serving.engine import Call, Embeddings, Finish, TokenLogprob
from danlu.serving.openai_requests import WireError

Json = dict[str, Any]

# Fields that only the model or its engine can refuse.
_PARAMS: Final = {
    "serving.no_calls": "tools",
    "templates.no_tools": "tools",
    "serving.one_tool": "tool_choice",
    "serving.no_schema": "response_format",
}


def new_id(prefix: str) -> str:
    """Return an id in OpenAI's manner."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    """Return the time in whole seconds, as OpenAI's ``created``."""
    return int(time.time())


def usage(finishes: Sequence[Finish], *, prompts: int = 1) -> Json:
    """Return the token counts of the answers to a request.

    Args:
        finishes: of all answers, those to one prompt after another.
        prompts: how many prompts there were; each is counted once, however many answers it got.
    """
    answers_each = max(1, len(finishes) // prompts)
    prompt = sum(finish.prompt_tokens for finish in finishes[::answers_each])
    completion = sum(finish.completion_tokens for finish in finishes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(finish.cached_tokens for finish in finishes[::answers_each])},
    }


def chat_message(content: str, reasoning: str, calls: Sequence[Call]) -> Json:
    """Return the message of a ``chat.completion``."""
    message: Json = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [call_object(call) for call in calls]
    return message


def call_object(call: Call, index: int | None = None) -> Json:
    """Return a call of a tool; in a stream with its place among the answer's calls."""
    place = {} if index is None else {"index": index}
    return place | {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def chat_logprobs(tokens: Sequence[TokenLogprob], top: int) -> Json:
    """Return log probabilities as chat completions have them.

    Args:
        tokens: of the content.
        top: how many of the likeliest tokens were asked for.
    """
    return {
        "content": [
            _logprob(token) | {"top_logprobs": [_logprob(other) for other in token.top[:top]]} for token in tokens
        ],
        "refusal": None,
    }


def text_logprobs(tokens: Sequence[TokenLogprob], top: int, offset: int) -> Json:
    """Return log probabilities as completions have them.

    Args:
        tokens: of the text.
        top: how many of the likeliest tokens were asked for.
        offset: characters of the text before these tokens.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.text: other.logprob for other in token.top[:top]} for token in tokens] if top else None,
        "text_offset": offsets,
    }


def envelope(answer_id: str, kind: str, created: int, model: str, choices: list[Json]) -> Json:
    """Return what surrounds choices, whole or of one chunk."""
    return {"id": answer_id, "object": kind, "created": created, "model": model, "choices": choices}


def embedding_list(model: str, made: Embeddings, *, packed: bool) -> Json:
    """Return the answer of ``/v1/embeddings``.

    Args:
        model: the name that was asked.
        made: the vectors.
        packed: as base64 of 32-bit floats, little endian, which OpenAI's own clients ask for.
    """
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else list(vector)}
        for index, vector in enumerate(made.vectors)
    ]
    counts = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    return {"object": "list", "data": data, "model": model, "usage": counts}


def model_object(name: str, created: int) -> Json:
    """Return one entry of the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "danlu"}


def error_body(error: DanluError, lang: Language | None = None) -> Json:
    """Return an error in OpenAI's shape."""
    kind, code = "invalid_request_error" if error.status < 500 else "server_error", error.key
    if isinstance(error, NoKeyError):
        kind, code = "authentication_error", "invalid_api_key"
    elif isinstance(error, QuotaError):
        kind, code = "rate_limit_error", error.code
    elif isinstance(error, TooLargeError):
        code = "context_length_exceeded"
    elif isinstance(error, BusyError):
        code = "overloaded"
    elif error.key == "serving.unknown_model":
        code = "model_not_found"
    elif error.key == "serving.unsupported_field":
        code = "unsupported_parameter"
    param = error.param if isinstance(error, WireError) else _PARAMS.get(error.key)
    return {"error": {"message": error.message(lang), "type": kind, "param": param, "code": code}}


def sse(value: Json) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def sse_comment(text: str) -> bytes:
    """Return a line that keeps a connection alive and that clients ignore."""
    return f": {text}\n\n".encode()


def _logprob(token: TokenLogprob) -> Json:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": None if token.data is None else list(token.data),
    }


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")

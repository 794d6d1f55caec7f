"""The child process of the ``transformers`` engine: any checkpoint or adapter, no export, one answer at a time.

The reference that the other engines are compared with, and the fallback where llama.cpp does not run. It speaks the
same wire: ``POST /v1/completions`` with token ids, streamed. It says by ``announcement`` where it listens; its key
comes by environment. Not for many callers, nor to be imported.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from danlu.errors import DanluError
from danlu.processes import watch_parent
from danlu.serving.announcement import KEY_VARIABLE, Announcer
from danlu.serving.transformers_model import Asked, Likely, LocalModel, Token


class _Completion(BaseModel):
    """The part of OpenAI's completion request that the gateway uses."""

    model_config = ConfigDict(extra="ignore")

    prompt: list[int] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = None
    repeat_penalty: float = Field(1.0, gt=0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: list[int] = []
    logit_bias: list[tuple[int, float]] = []
    preserved_tokens: list[str] = []
    n_probs: int | None = Field(None, ge=0)
    adapter: Path | None = None

    def asked(self) -> Asked:
        return Asked(
            prompt_ids=tuple(self.prompt),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            repetition_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            stop_ids=tuple(self.stop_token_ids),
            logit_bias=tuple(self.logit_bias),
            shown=tuple(self.preserved_tokens),
            top_logprobs=self.n_probs,
        )


class _Embedding(BaseModel):
    """The part of OpenAI's embedding request that the gateway uses."""

    model_config = ConfigDict(extra="ignore")

    input: list[list[int]] = Field(min_length=1)
    adapter: Path | None = None


class _App:
    """The routes over one model."""

    def __init__(self, model: LocalModel, model_id: str, context: int, key: str) -> None:
        self._model = model
        self._model_id = model_id
        self._context = context
        self._key = key
        self._turn = asyncio.Lock()  # fair: first come, first served

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def embeddings(self, request: Request) -> Response:
        if not self._known(request):
            return _refuse(401, "Invalid API key")
        try:
            asked = _Embedding.model_validate_json(await request.body())
        except ValidationError as error:
            return _refuse(400, str(error.errors(include_url=False)[0]))
        given = asked.input
        if not all(ids and len(ids) <= self._context and self._in_vocabulary(ids) for ids in given):
            return _refuse(400, f"an input is empty, longer than {self._context} tokens, or has unknown token ids")
        async with self._turn:
            try:
                await asyncio.to_thread(self._model.use, asked.adapter)
            except DanluError as error:
                return _refuse(400, error.message())
            vectors = [await asyncio.to_thread(self._model.embed, ids) for ids in given]
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        tokens = sum(map(len, given))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": self._model_id, "data": data, "usage": usage})

    async def completions(self, request: Request) -> Response:
        if not self._known(request):
            return _refuse(401, "Invalid API key")
        try:
            given = _Completion.model_validate_json(await request.body())
        except ValidationError as error:
            return _refuse(400, str(error.errors(include_url=False)[0]))
        asked = given.asked()
        if len(asked.prompt_ids) + asked.max_tokens > self._context:
            return _refuse(400, f"prompt and max_tokens exceed the context of {self._context}")
        if not self._in_vocabulary([*asked.prompt_ids, *(token for token, _ in asked.logit_bias)]):
            return _refuse(400, "a token id is outside of the vocabulary")
        return StreamingResponse(self._events(asked, given.adapter), media_type="text/event-stream")

    def _known(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._key.encode())

    def _in_vocabulary(self, ids: Sequence[int]) -> bool:
        return all(0 <= token < self._model.vocabulary for token in ids)

    async def _events(self, asked: Asked, adapter: Path | None) -> AsyncIterator[bytes]:
        """Yield the stream; closing it (the reader has gone) ends the generation at the next token."""
        count = 0
        async with self._turn:
            try:
                await asyncio.to_thread(self._model.use, adapter)
            except DanluError as error:
                yield _event({"error": {"message": error.message(), "type": "server_error"}})
                return
            generation = self._model.generate(asked)
            try:
                yield _event(self._chunk("", None, 0))
                async for token in generation:
                    count += 1
                    if token.text or token.chosen is not None:
                        yield _event(self._chunk(token.text, None, count, token))
                    if token.finish is not None:
                        yield _event(self._chunk("", token.finish, count) | {"usage": _usage(asked, count)})
                yield b"data: [DONE]\n\n"
            except DanluError as error:
                yield _event({"error": {"message": error.message(), "type": "server_error"}})
            finally:
                # The thread is waited for, so that the next caller's answer does not run beside this one.
                await asyncio.shield(generation.end())

    def _chunk(self, text: str, finish: str | None, count: int, token: Token | None = None) -> dict[str, Any]:
        logprobs = None
        if token is not None and token.chosen is not None:
            top = [self._logprob(likely) for likely in token.top]
            logprobs = {"content": [{**self._logprob(token.chosen), "top_logprobs": top}]}
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        timings = {"predicted_n": count}
        return {"object": "text_completion", "model": self._model_id, "choices": [choice], "timings": timings}

    def _logprob(self, likely: Likely) -> dict[str, Any]:
        text = self._model.token_text(likely.id)
        data = None if "\ufffd" in text else list(text.encode())  # a part of a character: its bytes are not known here
        return {"token": text, "bytes": data, "logprob": likely.logprob}


def main() -> None:
    """Serve until SIGTERM or until the parent is gone."""
    announcer = Announcer()
    arguments = _parser().parse_args()
    watch_parent()
    key = os.environ.pop(KEY_VARIABLE)
    try:
        model = LocalModel.load(arguments.weights, arguments.adapter, arguments.tokenizer, arguments.threads)
    except DanluError as error:
        announcer.refuse(error)
    app = _App(model, arguments.model_id, arguments.context, key)
    routes = [Route("/health", app.health), Route("/v1/completions", app.completions, methods=["POST"])]
    routes.append(Route("/v1/embeddings", app.embeddings, methods=["POST"]))
    listener = socket.create_server(("127.0.0.1", 0))
    announcer.ready(listener.getsockname()[1])
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        os._exit(0)  # a generation that is still running in its thread has nothing to save


def _usage(asked: Asked, count: int) -> dict[str, int]:
    prompt = len(asked.prompt_ids)
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="danlu.serving.transformers_child")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True, help="accepted like the other child's; always one here")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--model-id", required=True)
    return parser


if __name__ == "__main__":
    main()

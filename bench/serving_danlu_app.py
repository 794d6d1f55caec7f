"""Danlu's gateway behind the same two routes as the old script, without the rest of the server.

``NEW_GGUF`` is the weights, ``NEW_TOKENIZER`` the folder with the tokenizer and its chat template.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from danlu.errors import DanluError
from danlu.models.chat_format import ChatFormat
from danlu.models.versions import GenerationDefaults
from danlu.serving import api
from danlu.serving.engine import EngineSpec
from danlu.serving.gateway import Limits
from danlu.serving.registry import GatewayRegistry
from danlu.serving.served import ServedModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    spec = EngineSpec(kind="llamacpp", model_id="bench", weights=Path(os.environ["NEW_GGUF"]))
    served = ServedModel(
        name="bench",
        version_id="bench",
        version_name="bench",
        base="bench",
        spec=spec,
        prompts=ChatFormat.load(Path(os.environ["NEW_TOKENIZER"])),
        defaults=GenerationDefaults(temperature=0.6, top_p=0.85, repetition_penalty=1.2, max_tokens=64),
    )
    registry = GatewayRegistry(Limits(queue=64))
    entry = await registry.serve(served)
    await entry.gateway.wait_ready(300)
    app.state.registry = registry
    yield
    await registry.close()


app = FastAPI(lifespan=lifespan)


@app.get("/answer")
async def answer(request: Request) -> JSONResponse:
    try:
        result = await api.answer(request.app.state.registry, dict(request.query_params))
    except DanluError as error:
        status, headers, body = api.error_response(error)
        return JSONResponse(body, status, headers)
    assert isinstance(result, dict)
    return JSONResponse(result)


@app.get("/health")
async def health(request: Request) -> dict[str, object]:
    await asyncio.sleep(0)
    state = request.app.state.registry.get().gateway.health()
    return {"status": state.engine.state, "running": state.running, "waiting": state.waiting}

"""A model that is asked to write: an engine of this machine, or a server that speaks OpenAI's wire format.

For ``danlu data expand`` and ``from-docs``; not for callers of a service (``api``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from danlu.errors import EngineError
from danlu.models.messages import Message
from danlu.serving.engine import EngineSpec, GenerationRequest, Sampling, TextPiece
from danlu.serving.gateway import Gateway, Limits
from danlu.serving.openai_engine import OpenAIEngine
from danlu.serving.served import ServedModel, make_gateway

# Several wordings are wanted, not the likeliest one over and over.
_TEMPERATURE: Final = 0.8
_TOP_P: Final = 0.95
_READY_SECONDS: Final = 300.0
_FOREIGN_READY_SECONDS: Final = 20.0
# A server elsewhere has its own limit; this one only bounds what is sent.
_FOREIGN_CONTEXT: Final = 32_768


class Writer:
    """Asks a model, one request after the other or several at once.

    Args:
        gateway: the door to it, started.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, messages: Sequence[Message], room: int, seed: int) -> str:
        """Return the model's reply without its thoughts.

        Args:
            messages: what it is asked.
            room: most tokens of the reply.
            seed: seed of the sampling.

        Raises:
            EngineError: the engine is not there, or broke off.
            TooLargeError: the messages do not fit the context.
        """
        sampling = Sampling(max_tokens=room, temperature=_TEMPERATURE, top_p=_TOP_P, seed=seed)
        request = GenerationRequest(messages=tuple(messages), sampling=sampling)
        parts = []
        async with aclosing(self._gateway.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    parts.append(event.content)
        return "".join(parts).strip()


@asynccontextmanager
async def local_writer(served: ServedModel) -> AsyncGenerator[Writer, None]:
    """Start a model of this machine and stop it at the end.

    Raises:
        EngineError: it does not start.
    """
    gateway = make_gateway(served, Limits(queue=1000))
    async with _open(gateway, _READY_SECONDS) as writer:
        yield writer


@asynccontextmanager
async def foreign_writer(url: str, model: str, key_variable: str, parallel: int) -> AsyncGenerator[Writer, None]:
    """Ask a server that speaks OpenAI's wire format.

    Args:
        url: its base URL.
        model: what it calls the model.
        key_variable: environment variable with its key.
        parallel: requests at the same time.

    Raises:
        UsageError: the URL is none.
        EngineError: nobody answers there.
    """
    spec = EngineSpec(
        "openai", model, url=url, key_variable=key_variable, wire="chat", context=_FOREIGN_CONTEXT, slots=parallel
    )
    async with _open(
        Gateway(OpenAIEngine(spec, plain=True), None, Limits(queue=1000)), _FOREIGN_READY_SECONDS
    ) as writer:
        yield writer


def stays_in_the_house(url: str) -> bool:
    """Say whether a server is this machine or stands in a private network, as far as its address tells."""
    host = (urlsplit(url).hostname or "").casefold()
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal", ".lan")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


@asynccontextmanager
async def _open(gateway: Gateway, patience: float) -> AsyncGenerator[Writer, None]:
    await gateway.start()
    try:
        await gateway.wait_ready(patience)
        yield Writer(gateway)
    except BaseExceptionGroup as group:
        # Of requests that ran beside each other the first error speaks for all.
        errors = group.subgroup(EngineError)
        raise (errors.exceptions[0] if errors is not None else group.exceptions[0]) from None
    finally:
        await gateway.stop()

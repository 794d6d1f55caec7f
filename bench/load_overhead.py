"""What the server adds to its engine: the same greedy answers from the child itself and through HTTP, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from bench.load_client import ask, body
from bench.load_figures import Figure
from bench.load_server import ASSISTANT, Server
from bench.serving_vs_script import QUESTIONS
from danlu.models.messages import Message
from danlu.models.versions import ModelVersion
from danlu.serving.engine import EnginePiece, EngineRequest, EngineSpec
from danlu.serving.served import SamplingOverrides, ServedModel
from danlu.serving.supervisor import ChildEngine
from danlu.settings import Home

TOKENS = 64
ADDED_PERCENT = 3.0
ADDED_MS = 5.0


@dataclass(frozen=True)
class Taken:
    """One answer: its tokens, and seconds to its first text and to its end."""

    tokens: int
    first: float
    seconds: float


Way = Callable[[str], Awaitable[Taken]]


async def overhead(server: Server, home: Home, version: ModelVersion, repeats: int) -> list[Figure]:
    """Measure one caller and four; the engine asked directly is a second child of the same specification."""
    served = ServedModel.from_version(home.versions / version.id)
    engine = ChildEngine(served.spec)
    await engine.start()
    try:
        await engine.wait_ready(120)

        async def direct(question: str) -> Taken:
            return await _direct(engine, served.spec, served, question)

        async def through(question: str) -> Taken:
            answer = await ask(server.http, server.url, body(ASSISTANT, question, TOKENS))
            if not answer.done or answer.first is None:
                raise RuntimeError(f"no answer under no load: {answer.kind} {answer.message}")
            return Taken(answer.tokens, answer.first, answer.seconds)

        figures = []
        for callers in (1, 4):
            figures += await _compare(direct, through, callers, repeats)
        return figures
    finally:
        await engine.stop()


async def _direct(engine: ChildEngine, spec: EngineSpec, served: ServedModel, question: str) -> Taken:
    overrides = SamplingOverrides(max_tokens=TOKENS, temperature=0.0)
    request = served.request((Message("user", question),), overrides)
    assert served.prompts is not None
    begun = time.perf_counter()  # the prompt's rendering is the server's work, but an engine's caller needs it, too
    ids = tuple(served.prompts.prompt_ids(request.messages))
    stop_ids = tuple(sorted(served.prompts.stop_ids))
    tokens, first = 0, None
    async with aclosing(engine.stream(EngineRequest(ids, (), request.sampling, stop_ids))) as pieces:
        async for piece in pieces:
            if isinstance(piece, EnginePiece):
                tokens += piece.tokens
                if piece.text and first is None:
                    first = time.perf_counter() - begun
    assert first is not None
    return Taken(tokens, first, time.perf_counter() - begun)


async def _compare(direct: Way, through: Way, callers: int, repeats: int) -> list[Figure]:
    ways = {"direct": direct, "through": through}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    for question in QUESTIONS[:callers]:  # both prompt caches begin with the same
        for way in ways.values():
            await way(question)
    for turn in range(repeats):
        asked = [QUESTIONS[(turn + i) % len(QUESTIONS)] for i in range(callers)]
        # Who goes first changes, so that a machine that grows slower or faster favours neither.
        for name in sorted(ways, reverse=bool(turn % 2)):
            begun = time.perf_counter()
            taken = await asyncio.gather(*(ways[name](question) for question in asked))
            rates[name].append(sum(item.tokens for item in taken) / (time.perf_counter() - begun))
            firsts[name].append(statistics.median(item.first for item in taken) * 1000)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    first = {name: statistics.median(values) for name, values in firsts.items()}
    # Each turn is a pair under the same conditions; the median of the pairs' differences bears other work best.
    lost = statistics.median((1 - b / a) * 100 for a, b in zip(rates["direct"], rates["through"], strict=True))
    late = statistics.median(b - a for a, b in zip(firsts["direct"], firsts["through"], strict=True))
    who = f"{callers} caller" + "s" * (callers > 1)
    return [
        Figure("overhead", f"{who}: engine itself", rate["direct"], "tokens/s"),
        Figure("overhead", f"{who}: through the server", rate["through"], "tokens/s"),
        Figure("overhead", f"{who}: lost, median of pairs", lost, "%", ADDED_PERCENT),
        Figure("overhead", f"{who}: first token, engine itself", first["direct"], "ms"),
        Figure("overhead", f"{who}: first token, through the server", first["through"], "ms"),
        Figure("overhead", f"{who}: first token later by, median of pairs", late, "ms", ADDED_MS),
    ]

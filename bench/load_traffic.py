"""Many callers at once: idle streams, a full queue, a burst, callers who leave, and a long mixed load."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack

import aiohttp

from bench.load_client import Answer, ask, body
from bench.load_figures import Figure, arrivals, inversions, percentile, slope
from bench.load_server import ASSISTANT, Server
from bench.serving_vs_script import QUESTIONS

IDLE_STREAMS = 200
BURST = 64
_CONTROL = 24  # tokens of the answers that are compared before and after


async def idle(server: Server) -> list[Figure]:
    """Hold 200 streams open without reading them; those beyond the queue are refused and counted as such."""
    await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[0], 8))
    before, statuses = server.footprint(), Counter[int]()
    async with AsyncExitStack() as stack:

        async def hold() -> None:
            request = body(ASSISTANT, QUESTIONS[0], 2000)
            response = await server.http.post(f"{server.url}/v1/chat/completions", json=request)
            stack.callback(response.close)
            statuses[response.status] += 1

        await asyncio.gather(*(hold() for _ in range(IDLE_STREAMS)))
        await asyncio.sleep(2)
        during = server.footprint()
    await server.until_idle()
    added = during.server_mb - before.server_mb
    return [
        Figure("idle", "streams held open", statuses[200], "", IDLE_STREAMS, True),
        Figure("idle", "streams refused with 503", statuses[503], ""),
        Figure("idle", f"memory for {IDLE_STREAMS} callers who do not read", added, "MB", 100.0),
    ]


async def health(server: Server, seconds: float) -> list[Figure]:
    """Keep every slot and the whole queue busy, with more callers than fit, and ask ``/health`` meanwhile."""
    capacity = (await server.health())[0]["queue"]["capacity"]
    stop = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while time.perf_counter() < stop:
            answer = await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[number % len(QUESTIONS)], 48))
            if answer.status == 503:
                await asyncio.sleep(0.2)

    callers = [asyncio.create_task(caller(number)) for number in range(capacity + 20)]
    times, full, silent = list[float](), 0, 0
    await asyncio.sleep(1)
    while time.perf_counter() < stop:
        try:
            said, took = await server.health()
        except aiohttp.ClientError:
            silent += 1
        else:
            times.append(took)
            full += said["queue"]["running"] == capacity and said["queue"]["waiting"] > 0
        await asyncio.sleep(0.05)
    await asyncio.gather(*callers)
    return [
        Figure("health", "looks", len(times), ""),
        Figure("health", "looks without an answer", silent, "", 0),
        Figure(
            "health", "looks with all slots busy and callers waiting", 100 * full / max(1, len(times)), "%", 90, True
        ),
        Figure("health", "/health p50", percentile(times, 0.5), "ms"),
        Figure("health", "/health p99", percentile(times, 0.99), "ms", 50.0),
    ]


async def burst(server: Server) -> list[Figure]:
    """Send 64 requests at once; the place of arrival is the order in which they are sent."""

    async def caller(number: int) -> tuple[int, float, Answer]:
        await asyncio.sleep(number * 0.002)  # so that the order of sending is that of arrival
        begun = time.perf_counter()
        return number, begun, await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[number % 8], 32))

    results = await asyncio.gather(*(caller(number) for number in range(BURST)))
    said = Counter(answer.kind for _, _, answer in results)
    refused = [answer.seconds * 1000 for _, _, answer in results if answer.kind == "busy"]
    served = [(n, begun + (a.started or 0.0), a) for n, begun, a in results if a.kind == "answered"]
    waited = [answer.started or 0.0 for _, _, answer in served]
    order = [number for number, _, _ in sorted(served, key=lambda item: item[1])]
    pairs = len(order) * (len(order) - 1) / 2
    lost = BURST - said["answered"] - said["busy"]
    return [
        Figure("burst", "answered", said["answered"], "", 1, True),
        Figure("burst", "refused with 503", said["busy"], "", 1, True),
        Figure("burst", "neither answered nor refused", lost, "", 0),
        Figure("burst", "503 came after, median", percentile(refused, 0.5), "ms"),
        Figure("burst", "503 came after, longest", percentile(refused, 1.0), "ms", 1000.0),
        Figure("burst", "waited for a slot, least", min(waited, default=None), "s"),
        Figure("burst", "waited for a slot, median", percentile(waited, 0.5), "s"),
        Figure("burst", "waited for a slot, longest", max(waited, default=None), "s"),
        Figure("burst", "pairs served against arrival", 100 * inversions(order) / max(1.0, pairs), "%", 5.0),
    ]


async def leavers(server: Server, count: int, seed: int) -> list[Figure]:
    """Let callers arrive open-loop and leave after a random time, many of them before their first token."""
    before_answers = await _control(server)
    before = server.footprint()
    source = random.Random(seed)
    patience = [source.expovariate(1 / 0.4) for _ in range(count)]
    left, gone = Counter[str](), 0.0

    async def caller(number: int, moment: float) -> None:
        nonlocal gone
        await asyncio.sleep(moment)
        task = asyncio.create_task(ask(server.http, server.url, body(ASSISTANT, QUESTIONS[number % 8], 256)))
        done, _ = await asyncio.wait({task}, timeout=patience[number])
        left[task.result().kind if done else "left"] += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gone = time.perf_counter()

    await asyncio.gather(*(caller(n, moment) for n, moment in enumerate(arrivals(20.0, count, seed))))
    idle_after = await server.until_idle()
    freed = None if idle_after is None else (time.perf_counter() - gone) * 1000
    token = await ask(server.http, server.url, body(ASSISTANT, QUESTIONS[0], 32))
    gaps = [b - a for a, b in zip(token.pieces, token.pieces[1:], strict=False)]
    one_token = 1000 * (percentile(gaps, 0.5) or 0.0)
    await asyncio.sleep(2)
    after, after_answers = server.footprint(), await _control(server)
    same = sum(a == b for a, b in zip(before_answers, after_answers, strict=True))
    odd = count - left["left"] - left["busy"] - left["answered"]
    return [
        Figure("leavers", "callers who left", left["left"], "", 1, True),
        Figure("leavers", "callers refused with 503", left["busy"], ""),
        Figure("leavers", "callers with another error", odd, "", 0),
        Figure("leavers", "all slots free after the last left", freed, "ms", one_token),
        Figure("leavers", "one token's time, for comparison", one_token, "ms"),
        Figure("leavers", "memory added, server", after.server_mb - before.server_mb, "MB", 30.0),
        Figure("leavers", "memory added, engine", after.engine_mb - before.engine_mb, "MB"),
        Figure("leavers", "open files added, server", after.server_files - before.server_files, "", 8),
        Figure("leavers", "open files added, engine", after.engine_files - before.engine_files, "", 8),
        Figure("leavers", "control answers the same as before", same, "of 5", 5, True),
    ]


async def hour(server: Server, seconds: float, seed: int) -> list[Figure]:
    """Load the server open-loop with short, long and abandoned requests; memory is judged after a quarter's warm-up."""
    source, rate = random.Random(seed), 0.5
    moments = [moment for moment in arrivals(rate, int(seconds * rate * 2) + 10, seed) if moment < seconds]
    plans = [(source.choice((16, 32, 96)), source.random() < 0.2, source.uniform(0.1, 2.0)) for _ in moments]
    answers: list[Answer] = []
    left = 0
    samples: list[tuple[float, float, float]] = []
    begun = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal left
        await asyncio.sleep(moments[number])
        tokens, leaves, patience = plans[number]
        question = f"{QUESTIONS[number % 8]} ({number})"
        task = asyncio.create_task(ask(server.http, server.url, body(ASSISTANT, question, tokens)))
        done, _ = await asyncio.wait({task}, timeout=patience if leaves else None)
        if done:
            answers.append(task.result())
            return
        left += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def sample() -> None:
        while True:
            now = server.footprint()
            samples.append(((time.perf_counter() - begun) / 3600, now.server_mb, now.engine_mb))
            await asyncio.sleep(max(0.5, seconds / 600))

    sampler = asyncio.create_task(sample())
    await asyncio.gather(*(caller(number) for number in range(len(moments))))
    took = time.perf_counter() - begun
    sampler.cancel()
    await asyncio.gather(sampler, return_exceptions=True)
    kinds = Counter(answer.kind for answer in answers)
    firsts = [answer.first * 1000 for answer in answers if answer.first is not None]
    judged = [item for item in samples if item[0] * 3600 > took / 4]
    hours = [item[0] for item in judged]
    grown = [slope(hours, [item[column] for item in judged]) for column in (1, 2)]
    # A slope over minutes, written per hour, is mostly noise; only a long run can be judged by it.
    limit = 10.0 if seconds >= 1800 else None
    others = sum(kinds.values()) - kinds["answered"] - kinds["busy"]
    return [
        Figure("hour", "load lasted", took, "s"),
        Figure("hour", "answers", kinds["answered"] / took, "answers/s"),
        Figure("hour", "callers who left", left, ""),
        Figure("hour", "refused with 503", kinds["busy"], ""),
        Figure("hour", "other errors", others, "", 0),
        *(Figure("hour", f"first token p{round(p * 100)}", percentile(firsts, p), "ms") for p in (0.5, 0.95, 0.99)),
        Figure("hour", "server's memory grows by", grown[0], "MB/hour", limit),
        Figure("hour", "server's memory, first to last judged", judged[-1][1] - judged[0][1], "MB", 10.0),
        Figure("hour", "engine's memory grows by", grown[1], "MB/hour"),
        Figure("hour", "engine's memory, first to last judged", judged[-1][2] - judged[0][2], "MB"),
    ]


async def _control(server: Server) -> list[str]:
    """Return five greedy answers, asked one after the other."""
    return [(await ask(server.http, server.url, body(ASSISTANT, item, _CONTROL))).text for item in QUESTIONS[:5]]

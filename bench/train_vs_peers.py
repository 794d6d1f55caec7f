"""Danlu's training against LLaMA-Factory's and TRL's, on the processor: same rows, tokens, model, adapter and steps.

    python -m bench train --model FOLDER --data FILE [--shape qwen2-0.5b] [--peers lf-default,trl] [--runs 3] [--json]

The sides run one after the other, in turns (A B A B), each in a process of its own. Results go to stdout, progress to
stderr, every run's figures to ``bench/results/train-TIME.jsonl`` as soon as it ends. ``README.md`` says how to read
them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.peer_env import PeerEnv, Program, set_up
from bench.shapes import SHAPES, write_shape
from bench.train_results import DANLU, Loop, Run, Work, by_name, compare, read_danlu, read_peer, table
from bench.train_task import (
    PEERS,
    Encoded,
    Peer,
    Task,
    TokenCheck,
    chatml_copy,
    compare_tokens,
    danlu_words,
    environment,
    from_labels,
    peer_config,
    take_rows,
    trl_job,
    work_of,
    write_config,
    write_data,
)
from bench.watch import run_watched, tail
from danlu.data.batches import step_members
from danlu.data.datasets import read_dataset
from danlu.data.encode import encode
from danlu.hardware import measure_gflops
from danlu.models.architecture import read_architecture
from danlu.models.chat_format import ChatFormat

_HERE = Path(__file__).parent
_BUSY = 0.25


class BenchError(Exception):
    """The measurement cannot go on; the text says why."""


@dataclass(frozen=True)
class Bench:
    """Everything a run needs.

    Attributes:
        task: what is trained.
        envs: the peers' environments, LLaMA-Factory's always.
        work: folder for what the runs write.
        model: the base model.
        peer_model: the base model as LLaMA-Factory gets it.
        data: the rows' file.
        template: LLaMA-Factory's template, or None for the model's own.
        encoded: Danlu's examples as token ids, in the order of the file.
        to_do: what every run has to compute.
    """

    task: Task
    envs: Mapping[Program, PeerEnv]
    work: Path
    model: Path
    peer_model: Path
    data: Path
    template: str | None
    encoded: Sequence[Encoded]
    to_do: Work

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every run."""
        return environment(self.task, self.work / "cache")


def main(words: Sequence[str]) -> int:
    """Set up, check the tokens, run in turns, print; return the exit status."""
    arguments = _parse(words)
    # So that the program under measurement is ended too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except (BenchError, ValueError) as error:
        _say(f"error: {error}")
        return 1
    except subprocess.CalledProcessError as error:
        _say(f"error: the set-up failed ({' '.join(map(str, error.cmd))}); the same command goes on where it ended")
        return 1


def _main(arguments: argparse.Namespace) -> int:
    # LLaMA-Factory's always: the tokens are compared with it.
    programs = dict.fromkeys(("llamafactory", *(PEERS[name].program for name in arguments.peers)))
    envs = {program: set_up(program, arguments.envs.resolve(), _say) for program in programs}
    for program, env in envs.items():
        _say(f"{program}'s environment: {env.setup_seconds:.0f} s of set-up, {_words(env.versions)}")
    if arguments.setup_only:
        return 0
    bench = _prepare(arguments, envs)
    results = _HERE / "results" / f"train-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    check = check_tokens(bench)
    about = {
        "kind": "setup",
        "task": asdict(bench.task),
        "model": bench.model.name,
        "data": arguments.data.name,
        "machine": _machine(),
        "danlu_torch": torch.__version__,
        "peer_versions": {program: env.versions for program, env in envs.items()},
        "peer_setup_seconds": {program: env.setup_seconds for program, env in envs.items()},
        "tokens": {**asdict(check), "equal": check.equal},
    }
    _append(results, about)
    _report(check)
    if not check.equal and not arguments.allow_token_difference:
        raise BenchError("the sides would not train on the same tokens (--allow-token-difference measures anyway)")
    peers = [PEERS[name] for name in arguments.peers]
    runs, failed = _take_turns(bench, peers, arguments.runs, results)
    sides = by_name(runs)
    ratios = {name: compare(sides[DANLU], row) for name, row in sides.items() if name != DANLU and DANLU in sides}
    _say(f"figures of every run: {results}")
    if arguments.json:
        medians = {name: asdict(row) for name, row in sides.items()}
        ratio_values = {name: asdict(row) for name, row in ratios.items()}
        print(json.dumps({**about, "medians": medians, "danlu_against": ratio_values, "failed": sorted(failed)}))
    else:
        print(table(sides))
    return 1 if failed else 0


def check_tokens(bench: Bench) -> TokenCheck:
    """Encode the rows on both sides, LLaMA-Factory's in its own environment, and compare every example.

    Raises:
        BenchError: LLaMA-Factory could not encode them.
    """
    folder = bench.work / "tokens"
    peer = Peer("tokens", "the rows in the order of the file")
    config = peer_config(bench.task, peer, bench.peer_model, bench.data.parent, folder / "output", bench.template)
    written = write_config(config, folder / "config.yaml")
    answer = folder / "tokens.json"
    script = _HERE / "llamafactory_tokens.py"
    log = folder / "log"
    watched = run_watched(
        [bench.envs["llamafactory"].python, script, written, answer], log, bench.variables, bench.work
    )
    if watched.status != 0:
        raise BenchError(f"LLaMA-Factory could not encode the rows ({log}):\n{tail(log)}")
    theirs = [from_labels(ids, labels) for ids, labels in json.loads(answer.read_text(encoding="utf-8"))]
    return compare_tokens(bench.encoded, theirs)


def run_danlu(bench: Bench) -> tuple[Loop, float, int]:
    """Train with Danlu; return the loop, the wall time in seconds and the peak memory in bytes.

    Raises:
        BenchError: it failed.
    """
    home = bench.work / "home"
    program = Path(sys.executable).with_name("danlu")
    words = danlu_words(bench.task, bench.model, bench.data)
    log = bench.work / "logs" / "danlu.log"
    command: list[str | Path] = [program, "train", "--home", home, "--json", *words]
    watched = run_watched(command, log, bench.variables, bench.work)
    if watched.status != 0:
        raise BenchError(f"Danlu ended with status {watched.status} ({log}):\n{tail(log)}")
    loop = _require_steps(bench.task, read_danlu(watched.stdout, home))
    shutil.rmtree(home / "runs")
    return loop, watched.seconds, watched.peak_rss_bytes


def run_peer(bench: Bench, peer: Peer) -> tuple[Loop, float, int]:
    """Train with another program; return the loop, the wall time in seconds and the peak memory in bytes.

    Raises:
        BenchError: it failed.
    """
    output = bench.work / "output"
    shutil.rmtree(output, ignore_errors=True)
    command: list[str | Path]
    if peer.program == "trl":
        task = bench.task
        members = step_members(task.rows, task.batch_size, task.seed, task.steps)
        job = trl_job(task, peer, bench.model, [bench.encoded[i] for step in members for i in step], output)
        told = bench.work / f"{peer.name}.json"
        told.write_text(json.dumps(job), encoding="utf-8")
        # -P: the script must not see the modules beside it; one has the name of a package that transformers looks for.
        command = [bench.envs["trl"].python, "-P", _HERE / "trl_train.py", told]
    else:
        config = peer_config(bench.task, peer, bench.peer_model, bench.data.parent, output, bench.template)
        command = [bench.envs["llamafactory"].cli, "train", write_config(config, bench.work / f"{peer.name}.yaml")]
    log = bench.work / "logs" / f"{peer.name}.log"
    watched = run_watched(command, log, bench.variables, bench.work)
    if watched.status != 0 or not (output / "train_results.json").is_file():
        raise BenchError(f"{peer.name} ended with status {watched.status} ({log}):\n{tail(log)}")
    loop = _require_steps(bench.task, read_peer(output))
    shutil.rmtree(output)
    return loop, watched.seconds, watched.peak_rss_bytes


def _require_steps(task: Task, loop: Loop) -> Loop:
    if loop.steps != task.steps:
        raise BenchError(f"{loop.steps} steps were done instead of {task.steps}")
    return loop


def _take_turns(bench: Bench, peers: Sequence[Peer], count: int, results: Path) -> tuple[list[Run], set[str]]:
    """Run all sides in turns; a side that fails is left out from then on."""
    runs: list[Run] = []
    failed: set[str] = set()
    sides: list[Peer | None] = [None, *peers]
    for number in range(1, count + 1):
        for peer in sides:
            name = DANLU if peer is None else peer.name
            if name in failed:
                continue
            load = psutil.getloadavg()[0]
            busy = psutil.cpu_percent(interval=1.0) / 100
            if busy > _BUSY:
                _say(f"warning: {busy:.0%} of this machine is busy with something else (load {load:.1f})")
            _say(f"run {number} of {count}: {name} …")
            try:
                loop, seconds, peak = run_danlu(bench) if peer is None else run_peer(bench, peer)
            except (BenchError, ValueError) as error:
                _say(f"error: {error}")
                _append(results, {"kind": "failure", "name": name, "number": number, "error": str(error)})
                failed.add(name)
                continue
            run = Run(name, number, bench.task.examples, bench.to_do, loop, seconds, peak, load)
            runs.append(run)
            _append(results, {**run.record(), "busy_before": busy})
            _say(
                f"  {run.examples_per_second:.3f} examples/s (its own count: {loop.own_rate:.3f}), "
                f"{seconds:.1f} s wall, {peak / 1e9:.2f} GB, mean loss {loop.train_loss:.4f}"
            )
    return runs, failed


def _prepare(arguments: argparse.Namespace, envs: Mapping[Program, PeerEnv]) -> Bench:
    model = arguments.model.resolve()
    if not (model / "config.json").is_file():
        raise BenchError(f"{model} is no model folder")
    try:
        rows = json.loads(arguments.data.read_text(encoding="utf-8-sig"))
    except (OSError, json.JSONDecodeError) as error:
        raise BenchError(f"{arguments.data}: {error}") from error
    chosen = take_rows(rows, arguments.rows, arguments.batch_size, arguments.system)
    if len(chosen) != arguments.rows:
        _say(f"{len(chosen)} rows instead of {arguments.rows}, so that they fill whole steps")
    task = Task(
        rows=len(chosen),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        r=8,
        lora_alpha=16,
        seed=42,
        threads=arguments.threads,
        dtype=arguments.dtype,
    )
    work = arguments.work.resolve()
    if arguments.shape:
        model = write_shape(arguments.shape, model, work / "shapes" / arguments.shape)
    members = step_members(task.rows, task.batch_size, task.seed, task.steps)
    data = write_data(chosen, [index for step in members for index in step], work / "data")
    peer_model = model if arguments.lf_template else chatml_copy(model, work / "model" / model.name)
    examples = encode(read_dataset(data).conversations, ChatFormat.load(model))
    encoded = [(list(example.input_ids), list(example.learn)) for example in examples]
    to_do = work_of(encoded, task.epochs, read_architecture(model), max(measure_gflops().values()))
    return Bench(task, envs, work, model, peer_model, data, arguments.lf_template, encoded, to_do)


def _report(check: TokenCheck) -> None:
    ours, theirs = (f"{check.tokens[i]} tokens, {check.learned[i]} of them learned" for i in (0, 1))
    if check.equal:
        _say(f"tokens: the same on both sides ({check.rows[0]} examples, {ours})")
    else:
        some = ", ".join(str(number) for number in check.differing[:5])
        _say(f"tokens: DIFFERENT in {len(check.differing)} of {check.rows} examples (numbers {some} …)")
        _say(f"  Danlu: {ours}; LLaMA-Factory: {theirs}")


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": psutil.getloadavg()[0],
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _append(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _peer_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PEERS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'none'}: known are {', '.join(PEERS)}")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _parse(words: Sequence[str]) -> argparse.Namespace:
    known = "\n".join(f"  {peer.name:15}{peer.about}" for peer in PEERS.values())
    parser = argparse.ArgumentParser(
        prog="python -m bench train",
        description=f"{__doc__}\npeers:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    parser.add_argument(
        "--model", type=Path, help="base model: a folder in transformers' format with a ChatML template"
    )
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help="train a model of this shape with random weights instead; --model gives only the tokenizer",
    )
    parser.add_argument("--data", type=Path, help="rows to learn: an Alpaca JSON file")
    parser.add_argument("--rows", type=_positive, default=96, help="how many of them, from the first (default 96)")
    parser.add_argument("--epochs", type=_positive, default=1, help="passes over them (default 1)")
    parser.add_argument("--batch-size", type=_positive, default=8, help="examples of an optimizer step (default 8)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak, of both sides (default 2e-4)")
    parser.add_argument("--system", default="You are a helpful assistant.", help="system prompt of rows without one")
    parser.add_argument("--peers", type=_peer_names, default=["lf-default", "lf-tuned"], help="a,b (see above)")
    parser.add_argument("--runs", type=_positive, default=3, help="runs of each side (default 3)")
    parser.add_argument("--threads", type=_positive, default=cores, help=f"threads of each side (default {cores})")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "auto"],
        default="float32",
        help="of Danlu's frozen model; LLaMA-Factory's default is float32 (default float32)",
    )
    parser.add_argument("--lf-template", help="a template of LLaMA-Factory's instead of the model's own")
    parser.add_argument("--allow-token-difference", action="store_true", help="measure although tokens differ")
    parser.add_argument("--work", type=Path, default=_HERE / "results" / "scratch", help="folder for what runs write")
    parser.add_argument("--envs", type=Path, default=_HERE / ".envs", help="folder of the peers' environments")
    parser.add_argument("--setup-only", action="store_true", help="set the peers up and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    if not arguments.setup_only and (arguments.model is None or arguments.data is None):
        parser.error("--model and --data are needed")
    return arguments

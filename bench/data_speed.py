"""How fast data are checked and encoded, each in a process of its own: seconds, rows a minute, peak memory.

Encoding is measured beside the plain way, one conversation after the other through the same chat format, which must
give the same ids; with ``--peers`` also from the file to ids beside LLaMA-Factory's preprocessing and ``datasets.map``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.peer_env import set_up

WAYS: Final = ("check", "encode", "one by one", "file to ids")
# Name, and how many worker processes it is given (0: as many as it takes by itself, which is none).
PEERS: Final = {"llamafactory": 0, "llamafactory, 2 workers": 2, "datasets.map": 1, "datasets.map, 2 workers": 2}
_ENVS: Final = Path(__file__).with_name(".envs")
Measured = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What is measured: rows, a model's tokenizer, and a folder for what is made on the way."""

    rows: Path
    model: Path
    folder: Path


def write_rows(sources: Sequence[Path], count: int, target: Path) -> int:
    """Write ``count`` rows of Alpaca files, again and again with a number before each question; return the bytes."""
    rows = [row for source in sources for row in json.loads(source.read_text(encoding="utf-8"))]
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = dict(rows[number % len(rows)])
            row["instruction"] = f"({number // len(rows)}) {row['instruction']}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target.stat().st_size


def measure(way: str, rows: Path, model: Path) -> Measured:
    """Do one thing in this process; return how long it took, the peak memory, tokens, and a hash of the ids."""
    from danlu.data.check import check_file
    from danlu.data.datasets import DatasetLibrary
    from danlu.data.encoded import Encoder
    from danlu.models.chat_format import ChatFormat

    if way == "check":
        began = time.perf_counter()
        check_file(rows)
        return {"seconds": time.perf_counter() - began, "peak": peak()}
    digest = hashlib.sha256()
    total = learned = 0
    chat_format = ChatFormat.load(model)
    with tempfile.TemporaryDirectory() as folder:
        library = DatasetLibrary(Path(folder) / "sets")
        from_file = time.perf_counter()
        library.add(rows, "rows")
        dataset = library.open("rows")
        began = time.perf_counter()
        if way == "one by one":
            for item in dataset.conversations:
                for sequence in chat_format.training_sequences(item.messages, item.learn, item.tools):
                    digest.update(repr((sequence.ids, sequence.learn)).encode())
            return {"seconds": time.perf_counter() - began, "peak": peak(), "ids": digest.hexdigest()}
        table = Encoder(Path(folder) / "cache").conversations(dataset.sha256, dataset.conversations, chat_format)
        seconds = time.perf_counter() - (from_file if way == "file to ids" else began)
        held = peak()
        for example in table:
            digest.update(repr((example.input_ids, example.learn)).encode())
            total, learned = total + len(example.input_ids), learned + sum(example.learn)
        return {"seconds": seconds, "peak": held, "ids": digest.hexdigest(), "tokens": total, "learned": learned}


def measure_peer(name: str, asked: Asked) -> Measured:
    """Let another program read and encode the same rows; see ``measure``."""
    # Here, because what it imports prints to stdout, where the results go.
    from bench.train_task import DATASET, chatml_copy, write_config

    workers = PEERS[name]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        folder = Path(made)
        quiet |= {"HF_HOME": str(folder / "cache"), "PYTHONPATH": ""}
        if name.startswith("datasets.map"):
            script = Path(__file__).with_name("map_encode.py")
            words = [sys.executable, str(script), str(asked.rows), str(asked.model), made, str(workers)]
        else:
            columns = {"prompt": "instruction", "query": "input", "response": "output"}
            registry = {DATASET: {"file_name": asked.rows.name, "columns": columns}}
            (folder / asked.rows.name).symlink_to(asked.rows)
            (folder / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
            config = {
                "model_name_or_path": str(chatml_copy(asked.model, folder / "model")), "stage": "sft", "do_train": True,
                "finetuning_type": "lora", "dataset_dir": made, "dataset": DATASET, "output_dir": str(folder / "out"),
                "report_to": "none", **({"preprocessing_num_workers": workers} if workers else {}),
            }  # fmt: skip
            script = Path(__file__).with_name("llamafactory_encode.py")
            env = set_up("llamafactory", _ENVS, lambda line: print(line, file=sys.stderr))
            words = [str(env.python), str(script), str(write_config(config, folder / "config.yaml"))]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def main(words: Sequence[str]) -> int:
    """Measure each way several times, in turn, and print medians."""
    parser = argparse.ArgumentParser(prog="python -m bench data", description=__doc__)
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="Alpaca files that rows are taken from")
    parser.add_argument("--model", type=Path, required=True, help="folder of a model, for its tokenizer")
    parser.add_argument("--count", type=int, default=100_000, help="rows that are checked")
    parser.add_argument("--encoded", type=int, default=20_000, help="rows that are encoded")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="what is measured")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=[], help="other programs; without names all of them"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parsed = parser.parse_args(words)
    if parsed.way:
        print(json.dumps(measure(parsed.way, parsed.rows[0], parsed.model)))
        return 0
    peers = list(PEERS) if "--peers" in words and not parsed.peers else parsed.peers
    ways = [*parsed.only, *peers]
    with tempfile.TemporaryDirectory() as folder:
        counts = {way: parsed.count if way == "check" else parsed.encoded for way in ways}
        files = {count: Path(folder) / f"rows-{count}.jsonl" for count in set(counts.values())}
        sizes = {count: write_rows(parsed.rows, count, file) for count, file in files.items()}
        found: dict[str, list[Measured]] = {way: [] for way in ways}
        for _ in range(parsed.repeats):
            for way in ways:
                asked = Asked(files[counts[way]], parsed.model.resolve(), Path(folder))
                found[way].append(measure_peer(way, asked) if way in PEERS else _in_a_process(way, asked))
    results = {way: _median(counts[way], sizes[counts[way]], found[way]) for way in ways}
    ids = {one["ids"] for way in ways for one in found[way] if "ids" in one}
    told = {"results": results, "same_ids": len(ids) < 2, "cores": psutil.cpu_count(logical=False)}
    if parsed.json:
        print(json.dumps(told))
        return 0
    for way, result in results.items():
        tokens = f"{result['tokens']:>12,} tokens, {result['learned']:,} learned" if "tokens" in result else ""
        print(
            f"{way:24} {result['rows']:>9,} rows {result['seconds']:>8.1f} s {result['rows_a_minute']:>10,} rows/min "
            f"{result['peak_bytes'] / 1e6:>7,.0f} MB{tokens}"
        )
    ours = results.get("file to ids")
    if ours is not None:
        for peer in peers:
            print(f"file to ids is {results[peer]['seconds'] / ours['seconds']:.1f} times as fast as {peer}")
    print("the same ids" if told["same_ids"] else "DIFFERENT IDS")
    return 0


def _in_a_process(way: str, asked: Asked) -> Measured:
    command = [sys.executable, "-m", "bench", "data", "--rows", str(asked.rows), "--model", str(asked.model)]
    done = subprocess.run([*command, "--way", way], stdout=subprocess.PIPE, text=True, check=True)
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(count: int, size: int, found: Sequence[Measured]) -> Measured:
    seconds = statistics.median(float(one["seconds"]) for one in found)
    return {
        "rows": count,
        "bytes": size,
        "seconds": round(seconds, 2),
        "rows_a_minute": round(60 * count / seconds),
        "peak_bytes": int(statistics.median(float(one["peak"]) for one in found)),
        **{key: found[0][key] for key in ("tokens", "learned") if key in found[0]},
    }

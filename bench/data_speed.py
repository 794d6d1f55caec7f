"""How fast data are checked and encoded, each in a process of its own: seconds, rows a minute, peak memory.

Encoding is measured beside the plain way, one conversation after the other through the same chat format, which must
give the same ids.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

WAYS = ("check", "encode", "one by one")


def write_rows(sources: Sequence[Path], count: int, target: Path) -> int:
    """Write ``count`` rows of Alpaca files, again and again with a number before each question; return the bytes."""
    rows = [row for source in sources for row in json.loads(source.read_text(encoding="utf-8"))]
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = dict(rows[number % len(rows)])
            row["instruction"] = f"({number // len(rows)}) {row['instruction']}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target.stat().st_size


def measure(way: str, rows: Path, model: Path) -> dict[str, float | str]:
    """Do one thing in this process and return how long it took, the peak memory, and a hash of the ids."""
    from danlu.data.check import check_file
    from danlu.data.datasets import DatasetLibrary
    from danlu.data.encoded import Encoder
    from danlu.models.chat_format import ChatFormat

    digest = hashlib.sha256()
    if way == "check":
        began = time.perf_counter()
        check_file(rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            library = DatasetLibrary(Path(folder) / "sets")
            library.add(rows, "rows")
            dataset, chat_format = library.open("rows"), ChatFormat.load(model)
            began = time.perf_counter()
            if way == "encode":
                table = Encoder(Path(folder) / "cache").conversations(
                    dataset.sha256, dataset.conversations, chat_format
                )
                seconds = time.perf_counter() - began
                for example in table:
                    digest.update(repr((example.input_ids, example.learn)).encode())
                return {"seconds": seconds, "peak": peak(), "ids": digest.hexdigest()}
            for item in dataset.conversations:
                for sequence in chat_format.training_sequences(item.messages, item.learn, item.tools):
                    digest.update(repr((sequence.ids, sequence.learn)).encode())
    return {"seconds": time.perf_counter() - began, "peak": peak(), "ids": digest.hexdigest()}


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.way:
        print(json.dumps(measure(asked.way, asked.rows[0], asked.model)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, list[dict[str, float | str]]] = {way: [] for way in WAYS}
        files = {way: Path(folder) / f"{way.replace(' ', '-')}.jsonl" for way in WAYS}
        sizes = {
            way: write_rows(asked.rows, asked.count if way == "check" else asked.encoded, file)
            for way, file in files.items()
        }
        for _ in range(asked.repeats):
            for way in WAYS:
                command = [
                    sys.executable,
                    "-m",
                    "bench",
                    "data",
                    "--rows",
                    str(files[way]),
                    "--model",
                    str(asked.model),
                ]
                done = subprocess.run([*command, "--way", way], capture_output=True, text=True, check=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
    same = {str(one["ids"]) for way in WAYS[1:] for one in found[way]}
    results = {
        way: {
            "rows": asked.count if way == "check" else asked.encoded,
            "bytes": sizes[way],
            "seconds": round(statistics.median(float(one["seconds"]) for one in found[way]), 2),
            "peak_bytes": int(statistics.median(float(one["peak"]) for one in found[way])),
        }
        for way in WAYS
    }
    told = {"results": results, "same_ids": len(same) == 1, "cores": psutil.cpu_count(logical=False)}
    if asked.json:
        print(json.dumps(told))
        return 0
    for way, result in results.items():
        pace = 60 * result["rows"] / result["seconds"]
        print(
            f"{way:12} {result['rows']:>9,} rows {result['seconds']:>8.1f} s {pace:>10,.0f} rows/min "
            f"{result['peak_bytes'] / 1e6:>7,.0f} MB"
        )
    print("the same ids" if told["same_ids"] else "DIFFERENT IDS")
    return 0

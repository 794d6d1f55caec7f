"""How far the plan's predictions of time and memory are off: six small runs, each in a process of its own.

Three shapes of data (ten short Chinese rows; answers of a paragraph; short rows under a long system prompt) on two
shapes of model (a given folder; random weights in the shape of qwen2 with the same tokenizer).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from bench.shapes import SHAPES, write_shape

_TIME, _MEMORY = 0.20, 0.15
_PROMPT = "You are the keeper of a small tea house and answer briefly, in a friendly way, with one fact about tea. " * 9
_ROWS = 20


@dataclass(frozen=True)
class Case:
    """One run: what was predicted and what it took.

    Attributes:
        name: data and model.
        predicted_seconds: predicted time of the steps that were made.
        seconds: their time.
        predicted_bytes: predicted largest resident memory.
        peak_bytes: the memory.
    """

    name: str
    predicted_seconds: float
    seconds: float
    predicted_bytes: int
    peak_bytes: int

    @property
    def time_off(self) -> float:
        """Actual by predicted time, minus one."""
        return self.seconds / self.predicted_seconds - 1

    @property
    def memory_off(self) -> float:
        """Actual by predicted memory, minus one."""
        return self.peak_bytes / self.predicted_bytes - 1


def summary(cases: list[Case]) -> dict[str, float]:
    """Return the shares of cases whose time is within 20 % and whose memory is within 15 %."""
    return {
        "time_within_20_percent": sum(abs(case.time_off) <= _TIME for case in cases) / len(cases),
        "memory_within_15_percent": sum(abs(case.memory_off) <= _MEMORY for case in cases) / len(cases),
    }


def run(name: str, home: Path, model: Path, data: Path, words: list[str]) -> Case:
    """Train one case in a process of its own and compare.

    Raises:
        RuntimeError: the run failed.
    """
    command = [
        sys.executable, "-m", "danlu.cli.main", "train", f"model={model}", f"data.train={data}", *words,
        "--home", str(home), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    report = json.loads(done.stdout)
    return Case(
        name,
        report["seconds"] / (1 + report["prediction_error"]["seconds"]),
        report["seconds"],
        report["plan"]["predicted_peak_rss_bytes"],
        report["peak_rss_bytes"],
    )


def main(words: list[str]) -> int:
    """Run the cases that were asked for and print them."""
    parser = argparse.ArgumentParser(prog="python -m bench predictions", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that is given")
    parser.add_argument("--rows", type=Path, help="file of 16 rows or more, for example alpaca; a sample if left out")
    parser.add_argument("--only", default="", help="only cases whose name contains this word")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2-small", help="shape of the random model")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a word of the recipe")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(words)
    samples = files("danlu.samples")
    rows = chosen.rows or Path(str(samples.joinpath("persona.json")))
    data = {
        "ten-rows": (Path(str(samples.joinpath("ten_rows_zh.json"))), []),
        "paragraphs": (rows, [f"data.max_samples={_ROWS}"]),
        "system-prompt": (rows, [f"data.max_samples={_ROWS}", f"system={_PROMPT}"]),
    }
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in ("given", "qwen2"):
            for name, (path, more) in data.items():
                if chosen.only not in f"{name}/{shape}":
                    continue
                model = chosen.model
                if shape == "qwen2":
                    model = write_shape(chosen.shape, chosen.model, Path(folder) / "qwen2")
                case = run(f"{name}/{shape}", Path(folder) / "home", model, path, [*more, *chosen.set])
                cases.append(case)
                if not chosen.json:
                    print(
                        f"{case.name:24} {case.predicted_seconds:7.1f} s predicted {case.seconds:7.1f} s "
                        f"({case.time_off:+.0%})   {case.predicted_bytes / 2**20:6.0f} MiB predicted "
                        f"{case.peak_bytes / 2**20:6.0f} MiB ({case.memory_off:+.0%})",
                        flush=True,
                    )
    if not cases:
        parser.error(f"no case is called {chosen.only!r}")
    shares = summary(cases)
    if chosen.json:
        print(json.dumps({"cases": [asdict(case) for case in cases], **shares}))
    else:
        print("  ".join(f"{name}: {share:.0%}" for name, share in shares.items()))
    return 0

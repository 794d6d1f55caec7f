"""How much memory an export takes, check included, for models larger than memory: ``python -m bench export``.

    python -m bench export --tokenizer-of FOLDER [--shape qwen2-1.5b] [--formats gguf,merged] [--quant q8_0] [--json]

Writes a model of the shape with random bfloat16 weights and a random adapter (rank 8) into ``bench/results/scratch``,
exports both together in a process of its own, and samples the anonymous memory of that process and its children: what
has to be in memory, without the pages of mapped files, which the system takes back when it needs them. The limit is one
decoder layer in float32 plus 1 GB. Not a comparison with other programs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.shapes import SHAPES, write_large_shape

_SCRATCH = Path(__file__).parent / "results" / "scratch"
_SAMPLE_SECONDS = 0.05
_RANK = 8
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main(words: Sequence[str]) -> int:
    """Measure and print; 1 when a figure is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench export", description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer-of", type=Path, required=True, help="a model whose tokenizer the shape gets")
    parser.add_argument("--shape", choices=[name for name in SHAPES if "tiny" not in name], default="qwen2-1.5b")
    parser.add_argument("--formats", default="gguf,merged", help="comma-separated: gguf, merged, adapter-gguf, ollama")
    parser.add_argument("--quant", default="q8_0")
    parser.add_argument("--keep", action="store_true", help="do not remove the model and its exports")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    base = write_large_shape(arguments.shape, arguments.tokenizer_of, _SCRATCH / arguments.shape)
    adapter = _write_adapter(base, _SCRATCH / f"{arguments.shape}-adapter")
    layer = _layer_bytes(base)
    figures = []
    for kind in arguments.formats.split(","):
        target = _SCRATCH / f"{arguments.shape}-{kind}"
        shutil.rmtree(target, ignore_errors=True)
        print(f"{arguments.shape}: {kind} …", file=sys.stderr, flush=True)
        status, seconds, peak, largest = _measure(base, adapter, target, kind, arguments.quant)
        size = sum(file.stat().st_size for file in target.iterdir()) if target.is_dir() else 0
        figures.append(
            {
                "format": kind,
                "status": status,
                "seconds": round(seconds, 1),
                "bytes": size,
                "peak_anonymous_bytes": peak,
                "peak_one_process_bytes": largest,
                "limit_bytes": layer + 2**30,
            }
        )
        if not arguments.keep:
            shutil.rmtree(target, ignore_errors=True)
    if not arguments.keep:
        shutil.rmtree(base, ignore_errors=True)
        shutil.rmtree(adapter, ignore_errors=True)
    if arguments.json:
        print(json.dumps({"shape": arguments.shape, "quant": arguments.quant, "figures": figures}, indent=1))
    else:
        print(_table(arguments.shape, arguments.quant, figures))
    return 0 if all(row["status"] == 0 and row["peak_anonymous_bytes"] <= row["limit_bytes"] for row in figures) else 1


def _table(shape: str, quant: str, figures: Sequence[dict[str, object]]) -> str:
    lines = [f"{shape}, {quant}: memory that cannot be given back, export and check", ""]
    lines.append(f"{'format':14}{'written':>10}{'time':>9}{'all':>11}{'one process':>13}{'limit':>11}")
    for row in figures:
        written, peak, largest, limit = (
            float(str(row[key])) / 1e6
            for key in ("bytes", "peak_anonymous_bytes", "peak_one_process_bytes", "limit_bytes")
        )
        verdict = "ok" if row["status"] == 0 and peak <= limit else "SHORT" if row["status"] == 0 else "FAILED"
        lines.append(
            f"{row['format']:14}{written:7.0f} MB{row['seconds']:>7} s{peak:8.0f} MB{largest:10.0f} MB"
            f"{limit:8.0f} MB  {verdict}"
        )
    return "\n".join(lines)


def _measure(base: Path, adapter: Path, target: Path, kind: str, quant: str) -> tuple[int, float, int, int]:
    """Export in a process of its own; return its status, seconds, and most anonymous memory: of all, and of one."""
    words = [str(base), str(adapter), str(target), kind, quant]
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "bench.export_memory", *words], stdin=subprocess.DEVNULL)
    peak = largest = 0
    while child.poll() is None:
        sizes = _anonymous(child.pid)
        peak, largest = max(peak, sum(sizes)), max([largest, *sizes])
        time.sleep(_SAMPLE_SECONDS)
    return child.returncode, time.perf_counter() - start, peak, largest


def _anonymous(pid: int) -> list[int]:
    """Return the anonymous resident bytes of a process and of each of its descendants."""
    sizes = []
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for process in processes:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        except OSError:
            continue  # it has just ended
        sizes += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")]
    return sizes


def _layer_bytes(base: Path) -> int:
    from danlu.models.checks import read_weights

    _, specs = read_weights(base)
    return sum(spec.bytes for name, spec in specs.items() if name.startswith("model.layers.0.")) * 2


def _write_adapter(base: Path, folder: Path) -> Path:
    """Write a random adapter of rank 8 on all matrices of the layers."""
    import torch
    from safetensors.torch import save_file

    from danlu.models.checks import read_weights

    folder.mkdir(parents=True, exist_ok=True)
    _, specs = read_weights(base)
    torch.manual_seed(1)
    tensors = {}
    for name, spec in specs.items():
        module = name.removesuffix(".weight")
        if module.endswith(_TARGETS):
            rows, columns = spec.shape
            tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(_RANK, columns) * 0.02
            tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(rows, _RANK) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": 2 * _RANK, "bias": "none"}
    config |= {"target_modules": list(_TARGETS), "base_model_name_or_path": base.name}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _export(base: Path, adapter: Path, target: Path, kind: str, quant: str) -> None:
    """Export as ``danlu export`` does; random weights agree with themselves as any others do."""
    from danlu.export.deliver import ExportSource, export_to
    from danlu.models.chat_format import ChatFormat

    source = ExportSource("bench", base, base.name, adapter, base, ChatFormat.load(base))
    result = export_to(source, target, kind, quant)
    print(f"  {result.agreement}", file=sys.stderr)


if __name__ == "__main__":
    _export(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])

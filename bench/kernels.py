"""The parts of a training step that Danlu computes in its own way, beside the plain way, at several sizes.

Forward and backward, in turns, each the fastest of several; ``training.attention`` and ``training.loss`` name the
thresholds that follow from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from danlu.training.block_attention import block_attention
from danlu.training.loss import chunked_cross_entropy
from danlu.training.memory import keep_freed_memory

# Heads, heads of keys, and size of a head of SmolLM2-135M.
_HEADS, _KEYS, _DEPTH = 9, 3, 64
_LENGTHS = (32, 64, 128, 200, 256, 400, 512, 800, 1200)
_VOCABULARY, _HIDDEN, _ROWS = 49_152, 576, 1024
_CHUNKS = (64, 128, 256, 512)


def fastest(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """Return the fastest time of each way in seconds, forward and backward; the ways take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way().sum().backward()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def attention(length: int, repeats: int) -> dict[str, float]:
    """Measure one document of ``length`` tokens."""
    shapes = [(1, heads, length, _DEPTH) for heads in (_HEADS, _KEYS, _KEYS)]
    query, key, value = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return fastest(
        {
            "torch": lambda: functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=True
            ),
            "blocks": lambda: block_attention(query, key, value, _DEPTH**-0.5),
        },
        repeats,
    )


def head(repeats: int) -> dict[str, float]:
    """Measure the vocabulary head with so many rows at once."""
    layer = torch.nn.Linear(_HIDDEN, _VOCABULARY, bias=False).requires_grad_(False)
    hidden = torch.randn(_ROWS, _HIDDEN, requires_grad=True)
    targets = torch.randint(0, _VOCABULARY, (_ROWS,))

    def in_chunks(size: int) -> torch.Tensor:
        pieces = zip(hidden.split(size), targets.split(size), strict=True)
        return torch.stack([chunked_cross_entropy(rows, layer, wanted) for rows, wanted in pieces])

    return fastest({str(size): lambda size=size: in_chunks(size) for size in _CHUNKS}, repeats)


def main(words: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench kernels", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="computing threads (default: PyTorch's choice)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    attended = {length: attention(length, arguments.repeats) for length in _LENGTHS}
    chunks = head(arguments.repeats)
    if arguments.json:
        json.dump({"threads": torch.get_num_threads(), "attention": attended, "head": chunks}, sys.stdout, indent=2)
        print()
        return 0
    print(f"{torch.get_num_threads()} threads, float32, forward and backward, fastest of {arguments.repeats}\n")
    print("attention, one document:  tokens   torch ms  blocks ms  ratio")
    for length, times in attended.items():
        ours, theirs = times["blocks"], times["torch"]
        print(f"{length:32}{theirs * 1e3:11.2f}{ours * 1e3:11.2f}{theirs / ours:7.2f}")
    print(f"\nvocabulary head, {_ROWS} rows:  rows at once      ms  ratio to {_CHUNKS[0]}")
    for size, seconds in chunks.items():
        print(f"{size:>42}{seconds * 1e3:8.0f}{chunks[str(_CHUNKS[0])] / seconds:7.2f}")
    return 0

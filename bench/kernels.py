"""The parts of a step that Danlu computes in its own way, beside the plain way, at several sizes.

In turns, each the fastest of several; ``training.products``, ``training.attention`` and ``training.loss`` name the
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
from danlu.training.products import PackedMatrix, onednn_product, packable, transposed_product

# Heads, heads of keys, and size of a head of SmolLM2-135M.
_HEADS, _KEYS, _DEPTH = 9, 3, 64
_LENGTHS = (32, 64, 128, 200, 256, 400, 512, 800, 1200)
_VOCABULARY, _HIDDEN, _ROWS = 49_152, 576, 1024
_CHUNKS = (64, 128, 256, 512)
# Columns and rows: two of SmolLM2-135M, one of a model of 1.5 billion, a vocabulary.
_MATRICES = ((576, 1536), (1536, 576), (1536, 8960), (576, 49_152))
_PRODUCT_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 512, 1024)
# More than any cache holds, so that a matrix comes from memory as it does in a model.
_MATRIX_BYTES = 100 << 20


def fastest(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """Return the fastest time of each way in seconds, forward and, if it has one, backward; the ways take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            if result.requires_grad:
                result.sum().backward()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def products(into: int, out: int, rows: int, repeats: int) -> dict[str, float]:
    """Measure ``rows`` rows times matrices of ``out`` rows and ``into`` columns, forward only; seconds a matrix.

    ``packed`` is there only where Danlu packs matrices of that size.
    """
    matrices = [torch.randn(out, into) for _ in range(max(1, _MATRIX_BYTES // (4 * out * into)))]
    x = torch.randn(rows, into)

    def with_each(routine: Callable[..., torch.Tensor]) -> torch.Tensor:
        return [routine(x, matrix, None) for matrix in matrices][-1]

    routines = {"torch": functional.linear, "transposed": transposed_product, "onednn": onednn_product}
    ways = {name: lambda use=use: with_each(use) for name, use in routines.items()}
    packed = [PackedMatrix.of(matrix) for matrix in matrices if packable(matrix)]
    if packed:
        ways["packed"] = lambda: [matrix.product(x, None) for matrix in packed][-1]
    with torch.no_grad():
        times = fastest(ways, repeats)
    return {name: seconds / len(matrices) for name, seconds in times.items()}


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
    multiplied = {
        f"{into}x{out}": {rows: products(into, out, rows, arguments.repeats) for rows in _PRODUCT_ROWS}
        for into, out in _MATRICES
    }
    if arguments.json:
        found = {"attention": attended, "head": chunks, "products": multiplied}
        json.dump({"threads": torch.get_num_threads(), **found}, sys.stdout, indent=2)
        print()
        return 0
    print(f"{torch.get_num_threads()} threads, float32, fastest of {arguments.repeats}\n")
    print(
        "attention, one document, forward and backward:\n                          tokens   torch ms  blocks ms  ratio"
    )
    for length, times in attended.items():
        ours, theirs = times["blocks"], times["torch"]
        print(f"{length:32}{theirs * 1e3:11.2f}{ours * 1e3:11.2f}{theirs / ours:7.2f}")
    print(f"\nvocabulary head, {_ROWS} rows, forward and backward:")
    print(f"                              rows at once      ms  ratio to {_CHUNKS[0]}")
    for size, seconds in chunks.items():
        print(f"{size:>42}{seconds * 1e3:8.0f}{chunks[str(_CHUNKS[0])] / seconds:7.2f}")
    print("\nproduct with a matrix, forward:")
    print(
        "                          matrix    rows   torch ms  transposed ms  ratio  oneDNN ms  ratio  packed ms  ratio"
    )
    for matrix, by_rows in multiplied.items():
        for rows, times in by_rows.items():
            plain, transposed, onednn, *packed = (seconds * 1e3 for seconds in times.values())
            print(
                f"{matrix:>32}{rows:8}{plain:11.2f}{transposed:15.2f}{plain / transposed:7.2f}"
                f"{onednn:11.2f}{plain / onednn:7.2f}" + "".join(f"{ms:11.2f}{plain / ms:7.2f}" for ms in packed)
            )
    return 0

"""Encodes chat rows with ``datasets.map`` and the tokenizer's own chat template, as most training scripts do.

    python -m bench.map_encode ROWS.jsonl MODEL CACHE WORKERS

One JSON object is the last line of stdout.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(rows: Path, model: Path, cache: Path, workers: int) -> None:
    """Read the file and encode it: the ids of the conversation, and those of its question to leave out of the loss."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        question = row["instruction"] + (f"\n{row['input']}" if row["input"] else "")
        asked = [{"role": "user", "content": question}]
        before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(
            [*asked, {"role": "assistant", "content": row["output"]}], return_dict=False
        )
        return {"input_ids": whole, "labels": [-100] * len(before) + whole[len(before) :]}

    began = time.perf_counter()
    data = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(cache))
    data = data.map(encode, remove_columns=data.column_names, num_proc=workers if workers > 1 else None)
    seconds = time.perf_counter() - began
    total = sum(len(ids) for ids in data["input_ids"])
    learned = sum(sum(label != -100 for label in labels) for labels in data["labels"])
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Workers are processes of their own: the largest of them stands for each.
    held += (workers if workers > 1 else 0) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": held, "tokens": total, "learned": learned, "rows": len(data)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

"""Prepares rows as LLaMA-Factory does before it trains, and says how long it took. Runs in LLaMA-Factory's environment.

    python llamafactory_encode.py CONFIG.yaml

CONFIG.yaml is what a training run would get. One JSON object is the last line of stdout.
"""

import json
import resource
import sys
import time
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(config: Path) -> None:
    """Read the file and encode it; imports and the tokenizer are not counted."""
    model_args, data_args, training_args, *_ = get_train_args(yaml.safe_load(config.read_text(encoding="utf-8")))
    tokens = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    began = time.perf_counter()
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokens)["train_dataset"]
    seconds = time.perf_counter() - began
    total = sum(len(ids) for ids in data["input_ids"])
    learned = sum(sum(label != -100 for label in labels) for labels in data["labels"])
    # Workers are processes of their own: with several, the largest of them stands for each.
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    workers = data_args.preprocessing_num_workers or 0
    held += workers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": held, "tokens": total, "learned": learned, "rows": len(data)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Writes the token ids and labels that LLaMA-Factory makes of a training file. Runs in LLaMA-Factory's environment.

    python llamafactory_tokens.py CONFIG.yaml OUT.json

CONFIG.yaml is the file that the training run gets; OUT.json receives ``[[input_ids, labels], …]`` in file order.
"""

import json
import sys
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(config: Path, out: Path) -> None:
    """Encode as ``llamafactory-cli train`` does, and stop there."""
    arguments = yaml.safe_load(config.read_text(encoding="utf-8"))
    model_args, data_args, training_args, *_ = get_train_args(arguments)
    tokens = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokens)["train_dataset"]
    rows = [[list(row["input_ids"]), list(row["labels"])] for row in data]
    out.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

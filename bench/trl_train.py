"""Trains with TRL's SFTTrainer on examples that are token ids already. Runs in TRL's environment.

    python trl_train.py JOB.json

JOB.json is what ``train_task.trl_job`` makes; ``train_results.json`` and ``trainer_log.jsonl`` in the output folder
have the form in which LLaMA-Factory writes them, so that both are read alike.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(job: Path) -> None:
    """Train as told and write the figures."""
    told = json.loads(job.read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(told["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(told["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**told["training"]),
        train_dataset=Dataset.from_list(told["examples"]),
        processing_class=tokenizer,
        peft_config=LoraConfig(**told["lora"], target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    result = trainer.train()
    output = Path(told["training"]["output_dir"])
    (output / "train_results.json").write_text(json.dumps(result.metrics), encoding="utf-8")
    steps = [item for item in trainer.state.log_history if "loss" in item]
    lines = [json.dumps({"current_steps": number, "loss": item["loss"]}) for number, item in enumerate(steps, start=1)]
    (output / "trainer_log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

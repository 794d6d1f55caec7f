"""The task that both sides of ``train_vs_peers`` get: the rows, the settings, and each side's way to be told them.

Pure: reads and writes files, starts nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.peer_env import Program
from bench.train_results import Work
from danlu.models.architecture import Architecture

DATASET = "bench"
IN_ORDER = "bench-in-order"
_IGNORED = -100
# ChatML without a line break after an answer: Danlu learns an answer up to the token that ends the turn, while
# LLaMA-Factory would learn the line break after it too, an easy token that makes the mean loss look lower.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{% if message['role'] != 'assistant' %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CHAT_TEMPLATE_FILE = "chat_template.jinja"

Row = dict[str, Any]
Encoded = tuple[list[int], list[bool]]
"""Token ids of an example, and for each whether it is learned."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        rows: number of examples.
        epochs: passes over them.
        batch_size: examples of an optimizer step.
        learning_rate: its peak; falls linearly to zero, without warm-up.
        r: rank of the adapter on all linear layers.
        lora_alpha: its scale times ``r``.
        seed: seed of either side.
        threads: processor threads of either side.
        dtype: number format of Danlu's frozen model, or ``auto``.
    """

    rows: int
    epochs: int
    batch_size: int
    learning_rate: float
    r: int
    lora_alpha: int
    seed: int
    threads: int
    dtype: str

    @property
    def steps(self) -> int:
        """Optimizer steps; the rows fill them exactly."""
        return self.rows * self.epochs // self.batch_size

    @property
    def examples(self) -> int:
        """Examples seen in all."""
        return self.rows * self.epochs


@dataclass(frozen=True)
class Peer:
    """One way to run another program.

    Attributes:
        name: its name on the command line.
        about: what it stands for.
        extra: what it sets besides the task.
        program: the program.
        same_order: whether it gets the very examples in each step that Danlu takes.
    """

    name: str
    about: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    same_order: bool = False
    program: Program = "llamafactory"


_TUNED = {"disable_gradient_checkpointing": True, "train_sampling_strategy": "group_by_length"}
PEERS = {
    peer.name: peer
    for peer in (
        Peer("lf-default", "LLaMA-Factory at its command line's defaults: fp32, recomputation", same_order=True),
        Peer("lf-tuned", "LLaMA-Factory in fp32 without recomputation, batches of like length", _TUNED),
        Peer(
            "trl",
            "TRL's SFTTrainer at its defaults in fp32 (recomputation)",
            {"gradient_checkpointing": True},
            same_order=True,
            program="trl",
        ),
        Peer(
            "trl-tuned",
            "the same without recomputation",
            {"gradient_checkpointing": False},
            same_order=True,
            program="trl",
        ),
        Peer("lf-tuned-bf16", "the same with bf16 autocast", {**_TUNED, "bf16": True, "use_cpu": True}),
    )
}


def take_rows(rows: Sequence[Row], count: int, batch_size: int, system: str) -> list[Row]:
    """Return the first rows, whole optimizer steps of them, each with its system prompt written out.

    With the prompt in the row, no side adds one of its own.

    Args:
        rows: Alpaca rows.
        count: how many are wanted at most.
        batch_size: examples of a step; the result is a multiple of it.
        system: system prompt of the rows that have none.

    Raises:
        ValueError: there is not even one step of them.
    """
    usable = min(count, len(rows)) // batch_size * batch_size
    if usable == 0:
        raise ValueError(f"{min(count, len(rows))} rows do not fill one step of {batch_size}")
    history = any(row.get("history") for row in rows[:usable])
    return [
        {
            "instruction": row["instruction"],
            "input": row.get("input") or "",
            "output": row["output"],
            "system": row.get("system") or system,
            **({"history": row.get("history") or []} if history else {}),
        }
        for row in rows[:usable]
    ]


def write_data(rows: Sequence[Row], order: Sequence[int], folder: Path) -> Path:
    """Write the rows, and the registry in which LLaMA-Factory looks them up, into a folder.

    Args:
        rows: what is learned.
        order: indices of the rows in the order in which Danlu takes them, all epochs one after the other; written as
            a second data set, so that a peer which takes it unshuffled and once does the same steps.
        folder: the folder.

    Returns:
        The file of the rows as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    if "history" in rows[0]:
        columns["history"] = "history"
    contents = {DATASET: list(rows), IN_ORDER: [rows[index] for index in order]}
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    registry = {name: {"file_name": f"{name}.json", "columns": columns} for name in contents}
    (folder / "dataset_info.json").write_text(json.dumps(registry, indent=2) + "\n", encoding="utf-8")
    return folder / f"{DATASET}.json"


def chatml_copy(model: Path, folder: Path) -> Path:
    """Make LLaMA-Factory's view of a ChatML model: the same files (linked), the template's last line break left out.

    Raises:
        ValueError: the model's template is not ChatML.
    """
    template = model / _CHAT_TEMPLATE_FILE
    if template.is_file():
        text = template.read_text(encoding="utf-8")
    else:
        config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        text = str(config.get("chat_template") or "")
    if "<|im_start|>" not in text:
        raise ValueError(f"the chat template of {model} is not ChatML: name LLaMA-Factory's own with --lf-template")
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.is_file() and file.name != _CHAT_TEMPLATE_FILE:
            link = folder / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
    (folder / _CHAT_TEMPLATE_FILE).write_text(_CHATML, encoding="utf-8")
    return folder


def danlu_words(task: Task, model: Path, data: Path) -> list[str]:
    """Return the words of ``danlu train`` that fix everything which would be decided otherwise.

    Probe questions are asked before the first and after the last step only: LLaMA-Factory asks none.
    """
    return [
        f"model={model}",
        f"data.train={data}",
        "data.holdout=0",
        f"train.learning_rate={task.learning_rate}",
        f"train.num_train_epochs={task.epochs}",
        f"train.batch_size={task.batch_size}",
        "train.lr_scheduler_type=linear",
        "train.warmup_ratio=0",
        "train.weight_decay=0",
        "train.max_grad_norm=1.0",
        f"train.dtype={task.dtype}",
        f"train.seed={task.seed}",
        f"lora.r={task.r}",
        f"lora.lora_alpha={task.lora_alpha}",
        "lora.lora_dropout=0",
        f"eval.every={task.steps}",
        "eval.early_stopping=false",
    ]


def peer_config(
    task: Task, peer: Peer, model: Path, data_folder: Path, output: Path, template: str | None
) -> dict[str, Any]:
    """Return LLaMA-Factory's configuration: the task, the peer's extras, the rest left at its defaults.

    Args:
        task: what is trained.
        peer: how.
        model: base model folder.
        data_folder: folder that ``write_data`` filled.
        output: folder for the result.
        template: name of a template; None lets LLaMA-Factory read the model's own.
    """
    config: dict[str, Any] = {
        "model_name_or_path": str(model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": task.r,
        "lora_alpha": task.lora_alpha,
        "dataset_dir": str(data_folder),
        "dataset": IN_ORDER if peer.same_order else DATASET,
        "output_dir": str(output),
        "per_device_train_batch_size": task.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": task.learning_rate,
        "num_train_epochs": 1.0 if peer.same_order else float(task.epochs),
        "lr_scheduler_type": "linear",
        "seed": task.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    if peer.same_order:
        config["disable_shuffling"] = True
    if template is not None:
        config["template"] = template
    return {**config, **peer.extra}


def work_of(examples: Sequence[Encoded], epochs: int, shape: Architecture, machine_gflops: float) -> Work:
    """Return what training an adapter on examples has to compute.

    A product costs two operations a weight and token, forward and back to the input; the frozen weight gets none.
    """
    tokens, learned = _total(examples) * epochs, _learned(examples) * epochs
    matrices = 4 * shape.linear_parameters * tokens
    head = 4 * shape.vocab_size * shape.hidden_size * learned
    return Work(tokens, (matrices + head) / 1e9, machine_gflops)


def trl_job(task: Task, peer: Peer, model: Path, examples: Sequence[Encoded], output: Path) -> dict[str, Any]:
    """Return what ``trl_train.py`` is told: the task, the peer's extras, and the examples in the order of the steps.

    Args:
        task: what is trained.
        peer: how.
        model: base model folder.
        examples: Danlu's own tokens, all epochs one after the other.
        output: folder for the result.
    """
    return {
        "model": str(model),
        "lora": {"r": task.r, "lora_alpha": task.lora_alpha},
        "examples": [{"input_ids": ids, "labels": [i if on else _IGNORED for i, on in zip(ids, learn, strict=True)]}
                     for ids, learn in examples],
        "training": {
            "output_dir": str(output),
            "per_device_train_batch_size": task.batch_size,
            "gradient_accumulation_steps": 1,
            "num_train_epochs": 1.0,
            "learning_rate": task.learning_rate,
            "lr_scheduler_type": "linear",
            "max_length": None,
            "seed": task.seed,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": False,
            "use_cpu": True,
            "train_sampling_strategy": "sequential",
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            **peer.extra,
        },
    }  # fmt: skip


def write_config(config: Mapping[str, Any], path: Path) -> Path:
    """Write a configuration as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def environment(task: Task, cache: Path) -> dict[str, str]:
    """Return the environment of every run: no network, no GPU, the same threads, caches of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DANLU_", "MALLOC_"))}
    return {
        **kept,
        "OMP_NUM_THREADS": str(task.threads),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def from_labels(input_ids: Sequence[int], labels: Sequence[int]) -> Encoded:
    """Read the labels that trainers use: what is not learned carries -100."""
    return list(input_ids), [label != _IGNORED for label in labels]


@dataclass(frozen=True)
class TokenCheck:
    """Whether both sides train on the same tokens.

    Attributes:
        rows: examples of Danlu and of the peer.
        tokens: their tokens.
        learned: their learned tokens.
        differing: numbers of the examples that are not equal, from 0.
    """

    rows: tuple[int, int]
    tokens: tuple[int, int]
    learned: tuple[int, int]
    differing: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether every example is the same on both sides."""
        return not self.differing and self.rows[0] == self.rows[1]


def compare_tokens(ours: Sequence[Encoded], theirs: Sequence[Encoded]) -> TokenCheck:
    """Compare the examples of both sides one by one, in order."""
    differing = tuple(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    sides = (ours, theirs)
    return TokenCheck(
        rows=(len(ours), len(theirs)),
        tokens=(_total(sides[0]), _total(sides[1])),
        learned=(_learned(sides[0]), _learned(sides[1])),
        differing=differing,
    )


def _total(side: Sequence[Encoded]) -> int:
    return sum(len(ids) for ids, _ in side)


def _learned(side: Sequence[Encoded]) -> int:
    return sum(sum(learn) for _, learn in side)

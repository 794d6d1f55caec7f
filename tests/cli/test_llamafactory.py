"""``danlu plan`` and ``danlu train`` with a LLaMA-Factory file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from danlu.cli import common
from danlu.cli.render import print_reading
from danlu.i18n import use_language
from danlu.recipe_file import load_recipe, read_recipe

pytestmark = pytest.mark.usefixtures("worker_here")


@pytest.fixture
def file(material, tmp_path, monkeypatch) -> Path:
    """A LLaMA-Factory file for the tiny model, in the folder in which Danlu is started."""
    model, rows = material
    info = {"numbers": {"file_name": str(rows)}}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    values = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 4,
        "lora_target": "all", "dataset": "numbers", "template": "qwen", "cutoff_len": 256, "max_samples": 8,
        "output_dir": "saves/x", "overwrite_output_dir": True, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2, "learning_rate": 1.0e-3, "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "val_size": 0.25, "eval_strategy": "steps",
        "eval_steps": 2, "report_to": "none",
    }  # fmt: skip
    path = tmp_path / "lf.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def test_the_plan_follows_the_file_and_tells_how_each_key_was_read(danlu, file, monkeypatch):
    # The console is as wide as the terminal was when it was made: in another test, as likely as not.
    monkeypatch.setattr(common.console, "_width", 200)
    called = danlu("plan", file, "train.dtype=float32", "train.seed=7", "--json")
    plan = called.json
    settings = plan["settings"]
    assert plan["data"]["rows"] == 8  # of twelve, by max_samples
    assert (settings["batch_size"], settings["learning_rate"], settings["lora"]["r"]) == (2, 1e-3, 4)
    assert (settings["scheduler"], settings["eval_every"], settings["seed"]) == ("cosine", 2, 7)
    assert (plan["epochs"], plan["max_length"], plan["holdout_share"]) == (1.0, 256, 0.25)
    told = {item["key"]: item for item in plan["translated"]}
    assert list(told) == list(yaml.safe_load(file.read_text(encoding="utf-8")))
    assert told["lora_rank"] == {"key": "lora_rank", "value": 4, "field": "lora.r", "became": 4, "because": ""}
    assert told["template"]["field"] is None
    assert "own tokenizer" in told["template"]["because"]
    for text in (
        "lf.yaml is written for LLaMA-Factory", "lora_rank: 4", "lora.r: 4", "train.batch_size: 2",
        "gradient_accumulation_steps: 2", "overwrite_output_dir: true", "nothing is overwritten",
        "Not in the file", "lora.lora_alpha: auto", "You chose it.",
    ):  # fmt: skip
        assert text in called.err


def test_the_account_is_in_the_readers_language(file):
    (told,) = [item for item in read_recipe(file).translations if item.key == "report_to"]
    assert told.because("zh") == "没有要求丹炉本来做法之外的东西。"
    shown = io.StringIO()
    with use_language("zh"):
        print_reading(Console(file=shown, width=72), read_recipe(file), file.name)
    assert "是 LLaMA-Factory 的文件" in shown.getvalue()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_narrow_terminal_cuts_nothing_off(file, monkeypatch, lang):
    monkeypatch.setenv("DANLU_LANG", lang)
    shown = io.StringIO()
    print_reading(Console(file=shown, width=72), read_recipe(file), file.name)
    assert "…" not in shown.getvalue()


def test_a_run_keeps_the_translated_recipe(danlu, file, home):
    called = danlu("train", file, "train.dtype=float32", "train.num_train_epochs=0.5", "--json")
    assert called.json["status"] == "finished"
    assert "translated" not in called.json
    assert "lf.yaml is written for LLaMA-Factory" in called.err
    kept = load_recipe(home / "runs" / called.json["run"] / "recipe.yaml")
    assert kept.train.num_train_epochs == 0.5
    assert kept.data.max_samples == 8
    assert "model_name_or_path" not in (home / "runs" / called.json["run"] / "recipe.yaml").read_text(encoding="utf-8")


def test_a_recipe_of_danlus_has_nothing_to_translate(material):
    model, rows = material
    read = read_recipe(None, [f"model={model}", f"data.train={rows}"])
    assert read.translations == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lora_rnak: 8\n", "Did you mean “lora_rank”?"),
        ("deepspeed: ds.json\n", "“deepspeed: ds.json” is not in this version"),
        ("model: x\n", "mixes two vocabularies"),
        ("weight_decay: much\n", "“weight_decay” cannot be 'much'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(danlu, file, line, says):
    file.write_text(file.read_text(encoding="utf-8") + line, encoding="utf-8")
    called = danlu("plan", file, expect=1)
    assert says in called.line


def test_a_file_of_data_to_measure_on_is_measured_on_and_its_copies_are_told(danlu, file):
    said = file.read_text(encoding="utf-8").replace("val_size: 0.25", "eval_dataset: numbers")
    file.write_text(said, encoding="utf-8")
    called = danlu("plan", file)
    assert "eval_dataset: numbers" in called.err
    assert "rows of numbers, on which the run is measured, are also learned" in " ".join(
        (called.out + called.err).split()
    )
    assert "Traceback" not in called.err

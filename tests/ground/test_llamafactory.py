"""LLaMA-Factory's training YAML as a recipe: every kind of key, every mistake, every key accounted for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from transformers import Seq2SeqTrainingArguments

from danlu.errors import RecipeError
from danlu.i18n import LANGUAGES, catalogue
from danlu.llamafactory import DIFFERENT, KEYS, Becomes, NotBuilt, NotNeeded
from danlu.llamafactory.keys import MARKS, SECRET
from danlu.recipe import Recipe
from danlu.recipe_file import dump_recipe, load_recipe, read_recipe
from scripts.llamafactory_table import PAGES, with_tables
from tests.data.files import ROWS, write_json_rows

INFO: dict[str, Any] = {
    "identity": {"file_name": "identity.json"},
    "named": {
        "file_name": "identity.json",
        "formatting": "alpaca",
        "split": "train",
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "tools": None},
    },
    "texts": {"file_name": "identity.json", "columns": {"prompt": "text"}},
    "talks": {"file_name": "identity.json", "formatting": "sharegpt"},
    "pairs": {"file_name": "identity.json", "ranking": True},
    "judged": {
        "file_name": "identity.json",
        "ranking": True,
        "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    },
    "tagged": {
        "file_name": "identity.json",
        "columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"},
    },
    "hub": {"hf_hub_url": "someone/rows"},
    "cloud": {"cloud_file_name": "s3://bucket/rows.json"},
    "sampled": {"file_name": "identity.json", "num_samples": 5},
    "renamed": {"file_name": "identity.json", "columns": {"prompt": "question", "response": "output"}},
    "half": {"file_name": "identity.json", "columns": {"prompt": "instruction"}},
    "tools": {"file_name": "identity.json", "columns": {"prompt": "instruction", "response": "output", "tools": "t"}},
    "gone": {"file_name": "gone.json"},
    "table": {"file_name": "rows.csv"},
    "folder": {"file_name": "."},
    "nameless": {"formatting": "alpaca"},
    "odd": "identity.json",
}
LEAST: dict[str, object] = {"model_name_or_path": "m", "stage": "sft", "dataset": "identity"}
EXAMPLE = """
### model
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: identity, named
template: qwen
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16

### output
output_dir: saves/qwen/lora/sft
logging_steps: 10
plot_loss: true
report_to: none  # choices: [none, wandb]

### train
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder as LLaMA-Factory's, in which Danlu is started."""
    (tmp_path / "data").mkdir()
    write_json_rows(tmp_path / "data" / "identity.json", ROWS)
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(values: dict[str, object] | str) -> Path:
    path = Path("lf.yaml")
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return path


def recipe(words: tuple[str, ...] = (), /, **keys: object) -> Recipe:
    return load_recipe(write(LEAST | keys), words)


def got(field: str, /, **keys: object) -> object:
    value: object = recipe(**keys)
    for name in field.split("."):
        value = getattr(value, name)
    return value


def test_what_is_frozen_and_quantised_keeps_its_meaning(place):
    frozen = recipe(
        finetuning_type="freeze",
        freeze_trainable_layers=8,
        freeze_trainable_modules="mlp,norm",
        freeze_extra_modules="embed",
    )
    assert (frozen.method, frozen.freeze.layers) == ("freeze", 8)
    assert (frozen.freeze.modules, frozen.freeze.extra_modules) == (("mlp", "norm"), ("embed",))
    assert recipe(finetuning_type="freeze", freeze_trainable_modules="all").freeze.modules == ()
    assert recipe(report_to="wandb,mlflow").report_to == ("wandb", "mlflow")
    eight = recipe(quantization_bit=8)
    assert (eight.method, eight.lora.quantization_bit) == ("qlora", 8)


def told(key: str, /, **keys: object) -> tuple[str | None, object, str]:
    """Return what is told of a key: the field, what it became, and the sentence."""
    items = [item for item in read_recipe(write(LEAST | keys)).translations if item.key == key]
    return items[-1].field, items[-1].became, items[-1].because("en")


def refused(words: tuple[str, ...] = (), /, **keys: object) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(words, **keys)
    assert "\n" not in caught.value.message()
    return caught.value.message("en")


def test_a_file_as_llamafactory_ships_it_becomes_a_recipe(place):
    read = read_recipe(write(EXAMPLE))
    recipe = read.recipe
    assert recipe.model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert (recipe.objective, recipe.method) == ("sft", "lora")
    assert recipe.data.train == (str(Path("data/identity.json")),) * 2
    assert recipe.data.max_samples == 1000
    assert (recipe.lora.r, recipe.lora.target_modules) == (8, "all-linear")
    assert recipe.train.batch_size == 16
    assert (recipe.train.learning_rate, recipe.train.num_train_epochs) == (1e-4, 3.0)
    assert (recipe.train.lr_scheduler_type, recipe.train.warmup_ratio) == ("cosine", 0.1)
    assert (recipe.train.max_length, recipe.train.dtype) == (2048, "bfloat16")
    # What the file leaves out is Danlu's to decide, and is listed.
    assert (recipe.lora.lora_alpha, recipe.data.holdout) == ("auto", "auto")
    assert read.left_open() == {
        "data.holdout": "auto", "lora.lora_alpha": "auto", "train.weight_decay": 0.01, "eval.every": "auto",
        "eval.early_stopping": "auto", "resources.devices": "auto", "resources.strategy": "auto",
        "train.share_prefix": "auto",
    }  # fmt: skip


def test_only_what_the_method_uses_is_left_to_danlu(place):
    left = {
        method: set(read_recipe(write(LEAST | {"finetuning_type": method})).left_open())
        for method in ("lora", "full", "freeze")
    }
    assert left["lora"] - left["full"] == {"lora.r", "lora.lora_alpha"}
    assert left["freeze"] - left["full"] == {"freeze.layers"}


def test_every_key_of_the_file_is_accounted_for_in_its_order(place):
    told = [item.key for item in read_recipe(write(EXAMPLE)).translations]
    assert told == list(yaml.safe_load(EXAMPLE))


def test_every_account_is_a_field_or_a_sentence_in_both_languages(place):
    for item in read_recipe(write(EXAMPLE)).translations:
        for language in LANGUAGES:
            assert item.field or item.because(language), item.key


def test_the_recipe_that_is_kept_is_danlus_own(place):
    read = read_recipe(write(EXAMPLE))
    Path("kept.yaml").write_text(dump_recipe(read.recipe), encoding="utf-8")
    again = read_recipe(Path("kept.yaml"))
    assert again.recipe == read.recipe
    assert again.translations == ()


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ({"stage": "pt", "dataset": "texts"}, "objective", "pretrain"),
        ({"finetuning_type": "full"}, "method", "full"),
        ({"finetuning_type": "freeze"}, "method", "freeze"),
        ({"finetuning_type": "lora", "quantization_bit": 4}, "method", "qlora"),
        ({"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": True}, "method", "qlora"),
        ({"finetuning_type": "lora", "quantization_bit": 8}, "lora.quantization_bit", 8),
        ({"finetuning_type": "lora", "quantization_bit": None}, "method", "lora"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": -3}, "freeze.layers", -3),
        (
            {"finetuning_type": "freeze", "freeze_trainable_modules": "mlp, self_attn"},
            "freeze.modules",
            ("mlp", "self_attn"),
        ),
        ({"finetuning_type": "freeze", "freeze_trainable_modules": "all"}, "freeze.modules", ()),
        ({"finetuning_type": "freeze", "freeze_extra_modules": "norm"}, "freeze.extra_modules", ("norm",)),
        ({"finetuning_type": "lora", "freeze_trainable_layers": 3}, "freeze.layers", "auto"),
        ({"finetuning_type": "full", "bf16": True}, "train.dtype", "auto"),
        ({"finetuning_type": "lora", "bf16": True}, "train.dtype", "bfloat16"),
        ({"lora_target": "q_proj, v_proj"}, "lora.target_modules", ("q_proj", "v_proj")),
        ({"lora_target": ["q_proj"]}, "lora.target_modules", ("q_proj",)),
        ({"adapter_name_or_path": "saves/x"}, "lora.adapter", "saves/x"),
        ({"lora_alpha": 16}, "lora.lora_alpha", 16),
        ({"lora_alpha": None}, "lora.lora_alpha", "auto"),
        ({"lora_dropout": 0.1}, "lora.lora_dropout", 0.1),
        ({"default_system": "Be kind."}, "system", "Be kind."),
        ({"dataset": ["identity", "named"]}, "data.train", (str(Path("data/identity.json")),) * 2),
        ({"val_size": 0.1}, "data.holdout", 0.1),
        ({"val_size": 0}, "data.holdout", 0),
        ({"eval_dataset": "named"}, "data.holdout", str(Path("data/identity.json"))),
        ({"eval_dataset": "named", "val_size": 0.0}, "data.holdout", str(Path("data/identity.json"))),
        ({"per_device_train_batch_size": 4}, "train.batch_size", 4),
        ({"gradient_accumulation_steps": 4}, "train.batch_size", 32),
        ({"per_device_train_batch_size": None, "gradient_accumulation_steps": None}, "train.batch_size", "auto"),
        ({"weight_decay": 0.0}, "train.weight_decay", 0.0),
        ({"max_grad_norm": 0.3}, "train.max_grad_norm", 0.3),
        ({"seed": 7}, "train.seed", 7),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1}, "train.warmup_ratio", 0.1),
        ({"lr_scheduler_type": "constant_with_warmup"}, "train.lr_scheduler_type", "constant"),
        ({"lr_scheduler_type": "constant", "warmup_ratio": 0.1}, "train.warmup_ratio", 0.0),
        ({"lr_scheduler_type": "constant", "warmup_steps": 20}, "train.warmup_ratio", 0.0),
        ({"warmup_steps": 0}, "train.warmup_ratio", 0.0),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, "train.warmup_ratio", 0.1),
        ({"warmup_steps": 0.05}, "train.warmup_ratio", 0.05),
        ({"warmup_steps": 20}, "train.warmup_steps", 20),
        ({"warmup_steps": 20, "warmup_ratio": 0.1}, "train.warmup_ratio", "auto"),
        ({"max_steps": 100}, "train.max_steps", 100),
        ({"add_tokens": "<tool>,<end>", "resize_vocab": True}, "new_tokens", ("<tool>", "<end>")),
        ({"max_steps": 100, "num_train_epochs": 3}, "train.num_train_epochs", "auto"),
        ({"max_steps": -1, "num_train_epochs": 3}, "train.num_train_epochs", 3),
        ({"bf16": False}, "train.dtype", "auto"),
        ({"pure_bf16": True}, "train.dtype", "bfloat16"),
        ({"fp16": False}, "train.dtype", "auto"),
        ({"eval_strategy": "steps", "eval_steps": 20}, "eval.every", 20),
        ({"eval_strategy": "steps", "eval_steps": 20.0}, "eval.every", 20),
        ({"eval_strategy": "epoch", "eval_steps": 20}, "eval.every", "auto"),
        ({"eval_steps": 20}, "eval.every", "auto"),
        ({"early_stopping_steps": 5}, "eval.early_stopping", True),
        ({"ray_num_workers": 4}, "resources.devices", 4),
        ({"ray_num_workers": 1}, "resources.devices", "auto"),
        ({"optim": "adamw_torch"}, "train.optim", "adamw"),
    ],
)
def test_a_key_keeps_its_meaning(place, keys, field, value):
    assert got(field, **keys) == value


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


METHODS = [
    ("use_rslora", True, "lora.use_rslora", True),
    ("use_dora", True, "lora.use_dora", True),
    ("pissa_init", True, "lora.init_lora_weights", "pissa"),
    ("loraplus_lr_ratio", 16.0, "lora.loraplus_lr_ratio", 16.0),
    ("neftune_noise_alpha", 5, "train.neftune_noise_alpha", 5.0),
    ("label_smoothing_factor", 0.1, "train.label_smoothing_factor", 0.1),
    ("optim", "paged_adamw_8bit", "train.optim", "adamw_8bit"),
    ("optim", "adafactor", "train.optim", "adafactor"),
    ("use_muon", True, "train.optim", "muon"),
]


@pytest.mark.parametrize(("key", "value", "field", "became"), METHODS)
def test_a_method_is_taken(place, key, value, field, became):
    assert got(field, **{key: value}) == became
    assert told(key, **{key: value})[:2] == (field, became)


def test_muon_stands_above_the_other_optimizer_as_in_llamafactory(place):
    assert got("train.optim", use_muon=True, optim="adamw_torch") == "muon"
    assert told("optim", use_muon=True, optim="adamw_torch")[2] == "use_muon decides the optimizer."


@pytest.mark.parametrize("key", sorted({key for key, *_ in METHODS}))
def test_a_method_that_is_not_asked_for_does_no_harm(place, key):
    for value in (None, *KEYS[key].plain):
        assert told(key, **{key: value})[0] is None


def test_the_two_factors_of_the_batch_are_told_with_their_product(place):
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        field, became, why = told(key, per_device_train_batch_size=2, gradient_accumulation_steps=8)
        assert (field, became) == ("train.batch_size", 16)
        assert why.startswith("2 × 8 examples per optimizer step")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("packing", True, "without padding"),
        ("template", "qwen", "chat template of the model's own tokenizer"),
        ("trust_remote_code", True, "never runs code"),
        ("output_dir", "saves/x", "$DANLU_HOME/runs"),
        ("enable_thinking", False, "The examples decide"),
        ("flash_attn", "fa2", "fast paths of its own"),
        ("gradient_checkpointing", True, "changes no result"),
        ("pref_beta", 0.1, "Acts only in the stages"),
        ("galore_rank", 16, "does not ask for"),
        ("freeze_trainable_layers", 8, "does not ask for"),
        ("dataset_dir", "data", "which files"),
        ("do_train", True, "Asks for nothing"),
        ("learning_rate", None, "Nothing is said, so Danlu decides train.learning_rate"),
        ("deepspeed", None, "Asks for nothing"),
        ("report_to", "none", "Asks for nothing"),
    ],
)
def test_a_key_without_a_field_says_why(place, key, value, says):
    field, became, why = told(key, **{key: value})
    assert (field, became) == (None, None)
    assert says in why


def test_a_token_is_never_shown(place):
    for key in sorted(SECRET):
        item = next(item for item in read_recipe(write(LEAST | {key: "s3cret"})).translations if item.key == key)
        assert "s3cret" not in item.model_dump_json()
        assert item.because("en")


@pytest.mark.parametrize(
    ("keys", "named", "says"),
    [
        ({"stage": "rm"}, "stage: rm", "Use sft, pt, dpo"),
        ({"stage": "orpo"}, "stage: orpo", "dpo (with pref_loss: sigmoid, ipo or orpo)"),
        ({"stage": "dpo", "dataset": "judged", "pref_loss": "simpo"}, "pref_loss: simpo", "Use sigmoid, ipo or orpo"),
        ({"stage": "kto", "dataset": "tagged", "pref_ftx": 0.5}, "pref_ftx: 0.5", "Leave the key out"),
        ({"stage": "dpo", "dataset": "judged", "ld_alpha": 0.5}, "ld_alpha: 0.5", "Leave the key out"),
        ({"ref_model": "other"}, "ref_model: other", "the model as it is before the first step"),
        ({"finetuning_type": "oft"}, "finetuning_type: oft", "lora, full or freeze"),
        ({"quantization_bit": 3}, "quantization_bit: 3", "4 or 8 bits"),
        ({"quantization_method": "hqq"}, "quantization_method: hqq", "4 or 8 bits"),
        ({"finetuning_type": "full", "pure_bf16": True}, "pure_bf16: true", "stay in float32"),
        ({"finetuning_type": "full", "quantization_bit": 4}, "quantization_bit: 4", "finetuning_type: lora"),
        ({"adapter_name_or_path": "saves/x,saves/y"}, "adapter_name_or_path: saves/x,saves/y", "merge into the model"),
        ({"adapter_name_or_path": "x", "create_new_adapter": True}, "adapter_name_or_path: x", "merge into the model"),
        ({"deepspeed": "ds_z3.json"}, "deepspeed: ds_z3.json", "resources.strategy"),
        ({"fp16": True}, "fp16: true", "bf16: true"),
        ({"add_special_tokens": "<tool>"}, "add_special_tokens: <tool>", "add_tokens"),
        ({"val_size": 100}, "val_size: 100", "0.1"),
        ({"eval_dataset": "identity,named"}, "eval_dataset: identity,named", "one data set"),
        ({"eval_strategy": "steps", "eval_steps": 0.1}, "eval_steps: 0.1", "whole number"),
        ({"use_swanlab": True}, "use_swanlab: true", "report_to: swanlab"),
        ({"resume_from_checkpoint": "saves/x"}, "resume_from_checkpoint: saves/x", "danlu runs resume"),
        ({"train_on_prompt": True}, "train_on_prompt: true", "learns every answer"),
        ({"use_galore": True}, "use_galore: true", "write false"),
        ({"adam_beta2": 0.95}, "adam_beta2: 0.95", "write 0.999"),
        ({"additional_target": "embed_tokens"}, "additional_target: embed_tokens", "Leave the key out"),
        ({"do_train": False}, "do_train: false", "danlu eval"),
        ({"do_predict": True}, "do_predict: true", "danlu eval"),
        ({"dataset_dir": "REMOTE:x/y"}, "dataset_dir: REMOTE:x/y", "dataset_info.json"),
        ({"dataset_dir": "ONLINE"}, "dataset_dir: ONLINE", "dataset_info.json"),
        ({"use_mca": 1}, "use_mca: 1", "write false"),
    ],
)
def test_what_is_not_built_is_an_error_that_names_the_key_and_what_to_do(place, keys, named, says):
    message = refused(**keys)
    assert message.startswith("lf.yaml: ")
    assert f"“{named}” is not in this version" in message
    assert says in message


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("lora_rnak", "lora_rank"),
        ("learn_rate", "learning_rate"),
        ("modell_name_or_path", "model_name_or_path"),
        ("num_epochs", "num_train_epochs"),
        ("batch_size", "per_device_train_batch_size"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_known_one(place, key, close):
    message = refused(**{key: 1})
    assert f"LLaMA-Factory has no key “{key}”" in message
    if key != "batch_size":
        assert f"Did you mean “{close}”?" in message


def test_a_key_like_no_other_is_an_error_too(place):
    assert "“zzzzzz”" in refused(zzzzzz=1)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("learning_rate", "fast", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", 5, "it must be at most 1"),
        ("lora_rank", 8.5, "a whole number"),
        ("lora_rank", 0, "it must be at least 1"),
        ("bf16", "yes", "true or false"),
        ("model_name_or_path", 3, "a text"),
        ("dataset", 3, "a list of at least one text"),
        ("dataset", [], "a list of at least one text"),
        ("dataset", " , ", "a list of at least one text"),
        ("lora_target", [1], "a list of at least one text"),
        ("dataset_dir", {"identity": {}}, "a text"),
        ("stage", "sfft", "allowed: sft / pt"),
        ("finetuning_type", "qlora", "allowed: lora / full / freeze"),
        ("lr_scheduler_type", "polynomial", "linear / cosine / constant"),
        ("warmup_ratio", 1.5, "it must be less than 1"),
        ("optim", "lion_8bit", "adamw / adamw_8bit"),
        ("loraplus_lr_ratio", 0.5, "it must be at least 1"),
        ("per_device_train_batch_size", 0, "it must be at least 1"),
        ("gradient_accumulation_steps", "8", "a whole number"),
        ("max_samples", 0, "it must be at least 1"),
        ("cutoff_len", 4, "it must be at least 8"),
    ],
)
def test_a_wrong_value_is_named_by_the_files_own_key(place, key, value, allowed):
    message = refused(**{key: value})
    assert message.startswith(f"lf.yaml: “{key}” cannot be")
    assert allowed in message


def test_a_product_that_is_too_large_is_named_by_both_factors(place):
    message = refused(per_device_train_batch_size=1024, gradient_accumulation_steps=8)
    assert "“per_device_train_batch_size × gradient_accumulation_steps” cannot be 8192" in message


@pytest.mark.parametrize("other", [{"gradient_accumulation_steps": "8"}, {"gradient_accumulation_steps": 0}])
def test_either_factor_may_be_wrong(place, other):
    assert "“gradient_accumulation_steps” cannot be" in refused(per_device_train_batch_size=2, **other)


@pytest.mark.parametrize(("key", "field"), [("model_name_or_path", "model"), ("dataset", "data.train")])
@pytest.mark.parametrize("null", [True, False])
def test_a_missing_model_or_data_set_is_named_in_both_vocabularies(place, key, field, null):
    values = {name: value for name, value in LEAST.items() if name != key} | ({key: None} if null else {})
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(values))
    assert caught.value.message("en").startswith(f"lf.yaml: The file does not say “{key}”. Add it, or give {field}=")
    assert load_recipe(write(values), [f"{field}=x"])


def test_a_file_that_mixes_both_vocabularies_is_refused(place):
    message = refused(model="m")
    assert "mixes two vocabularies: “model_name_or_path” is LLaMA-Factory's, “model” is Danlu's" in message


def test_a_recipe_of_danlus_with_one_stray_key_is_told_the_right_field(place):
    path = write("model: m\ndata: {train: a}\nlearning_rate: 1e-4\n")
    with pytest.raises(RecipeError, match=r"Did you mean “train\.learning_rate”"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("word", "field"),
    [("lora_rank=4", "lora.r"), ("cutoff_len=512", "train.max_length"), ("dataset=a.json", "data.train")],
)
def test_an_override_in_llamafactorys_words_is_told_danlus_field(place, word, field):
    assert f"Did you mean “{field}”?" in refused((word,))


def test_overrides_bear_danlus_names_and_stand_above_the_file(place):
    words = ("train.learning_rate=2e-4", "lora.r=32", "data.holdout=0")
    read = read_recipe(write(LEAST | {"learning_rate": 1e-4, "lora_rank": 8, "val_size": 0.1}), words)
    assert (read.recipe.train.learning_rate, read.recipe.lora.r, read.recipe.data.holdout) == (2e-4, 32, 0)
    why = {item.key: item.because("en") for item in read.translations}
    assert why["learning_rate"] == "Your train.learning_rate=2e-4 stands."
    assert why["lora_rank"] == "Your lora.r=32 stands."


def test_a_wrong_override_is_named_by_danlus_field(place):
    assert "“train.learning_rate” cannot be 9" in refused(("train.learning_rate=9",), learning_rate=1e-4)


def test_data_given_on_the_command_line_needs_no_list_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe(("data.train=mine.json",)).data.train == ("mine.json",)
    assert "data/dataset_info.json: There is no such file".replace("/", str(Path("/"))) in refused()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("identty", "Did you mean “identity”?"),
        ("xyz", "no data set “xyz” (it has: identity, named"),
        ("talks", "in the format “sharegpt”; so far only alpaca"),
        ("pairs", "“ranking: True” of a data set"),
        ("hub", "does not lie on this machine (hf_hub_url: someone/rows)"),
        ("cloud", "does not lie on this machine (cloud_file_name"),
        ("sampled", "“num_samples: 5” of a data set"),
        ("renamed", "The column of “prompt” is “question”; so far its name must be “instruction”"),
        ("half", "do not name “response”"),
        ("tools", "“t” (tools) is not read"),
        ("gone", "There is no file"),
        ("table", "rows.csv is no file of a kind that is read"),
        ("folder", "is a folder"),
        ("nameless", "has no file_name"),
        ("odd", "not an object with names and values"),
        ("texts", "do not name “response”"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused_by_name(place, name, says):
    message = refused(dataset=f"identity,{name}")
    assert message.startswith(str(Path("data/dataset_info.json")))
    assert says in message


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (
            {"stage": "dpo", "pref_loss": "ipo", "pref_beta": 0.2, "pref_ftx": 1.0},
            {"objective": "dpo", "loss_type": "ipo", "beta": 0.2, "rpo_alpha": 1.0},
        ),
        ({"stage": "dpo", "dpo_label_smoothing": 0.1}, {"objective": "dpo", "beta": "auto", "label_smoothing": 0.1}),
        (
            {"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.3},
            {"objective": "orpo", "beta": 0.3, "loss_type": "sigmoid"},
        ),
        (
            {"stage": "kto", "dataset": "tagged", "kto_chosen_weight": 1.5, "kto_rejected_weight": 0.5},
            {"objective": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5},
        ),
    ],
)
def test_preference_stages_keep_their_meaning(place, keys, values):
    made = recipe(**{"dataset": "judged", **keys})
    assert made.objective == values.pop("objective")
    assert {name: getattr(made.preference, name) for name in values} == values


def test_preference_keys_do_no_harm_where_they_do_not_act(place):
    for stage, dataset, key in (("sft", "identity", "pref_loss"), ("kto", "tagged", "dpo_label_smoothing")):
        made = read_recipe(
            write(LEAST | {"stage": stage, "dataset": dataset, key: "ipo" if key == "pref_loss" else 0.1})
        )
        item = next(item for item in made.translations if item.key == key)
        assert (item.field, item.reason) == (None, "llamafactory.other_stages")


def test_pairs_and_labels_must_stand_in_their_columns(place):
    assert "does not say that this data set has any" in refused(stage="dpo", dataset="tagged")
    assert "do not name “kto_tag”" in refused(stage="kto", dataset="named")
    assert "do not name “prompt”" in refused(stage="dpo", dataset="pairs")


def test_texts_must_stand_in_the_column_text(place):
    assert "The column of “prompt” is “instruction”; so far its name must be “text”" in refused(stage="pt")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "not readable JSON"), (b"[]", "not an object"), (b"\xff\xfe", "not readable JSON")],
)
def test_a_list_of_data_sets_that_is_none_is_refused(place, content, says):
    (place / "data" / "dataset_info.json").write_bytes(content)
    message = refused()
    assert message.startswith(str(Path("data/dataset_info.json")))
    assert says in message


def test_both_ways_to_hold_out_at_once_are_refused(place):
    assert "both eval_dataset and val_size" in refused(eval_dataset="named", val_size=0.1)


def test_another_folder_of_data_sets_is_looked_into(place):
    (place / "data").rename(place / "other")
    assert got("data.train", dataset_dir="other") == (str(Path("other/identity.json")),)


def test_every_training_argument_of_transformers_is_known():
    assert {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)} - KEYS.keys() == set()


def test_marks_and_secrets_are_keys_and_no_mark_is_a_field_of_danlus():
    assert set(MARKS) | SECRET <= KEYS.keys()
    assert not set(MARKS) & Recipe.model_fields.keys()


def test_every_field_that_is_named_is_one_of_the_recipe():
    named = {key.field for key in KEYS.values() if isinstance(key, Becomes)} | set(DIFFERENT)
    assert named <= set(fields_of(Recipe))


def test_every_key_has_its_sentence_in_both_languages():
    for language in LANGUAGES:
        texts = catalogue(language)
        for name, key in KEYS.items():
            match key:
                case NotNeeded():
                    assert key.because in texts, name
                case NotBuilt():
                    assert key.instead in texts, name
                case Becomes():
                    assert key.note is None or key.note in texts, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_manual_lists_the_keys_as_they_are_read(language):
    page = PAGES[language].read_text(encoding="utf-8")
    assert page == with_tables(page, language), "run scripts/llamafactory_table.py"

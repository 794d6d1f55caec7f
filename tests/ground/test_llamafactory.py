"""LLaMA-Factory's training YAML as a recipe: every kind of key keeps its meaning or says why it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from danlu.i18n import LANGUAGES
from danlu.llamafactory import KEYS
from danlu.llamafactory.keys import SECRET
from danlu.recipe_file import dump_recipe, read_recipe
from tests.ground.llamafactory import LEAST, got, recipe, told, write

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

LISTED = str(Path("data/dataset_info.json"))


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


def test_a_file_as_llamafactory_ships_it_becomes_a_recipe(place):
    read = read_recipe(write(EXAMPLE))
    recipe = read.recipe
    assert recipe.model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert (recipe.objective, recipe.method) == ("sft", "lora")
    assert recipe.data.train == (LISTED + "#identity", LISTED + "#named")
    assert recipe.data.max_samples == 1000
    assert (recipe.lora.r, recipe.lora.target_modules) == (8, "all-linear")
    assert recipe.train.batch_size == 16
    assert (recipe.train.learning_rate, recipe.train.num_train_epochs) == (1e-4, 3.0)
    assert (recipe.train.lr_scheduler_type, recipe.train.warmup_ratio) == ("cosine", 0.1)
    assert (recipe.train.max_length, recipe.train.dtype) == (2048, "bfloat16")
    # What the file leaves out is Danlu's to decide, and is listed.
    assert (recipe.lora.lora_alpha, recipe.data.holdout) == ("auto", "auto")
    assert read.left_open() == {
        "chat_template": "auto", "data.holdout": "auto", "lora.lora_alpha": "auto", "train.weight_decay": 0.01,
        "eval.every": "auto",
        "eval.early_stopping": "auto", "resources.devices": "auto", "resources.strategy": "auto",
        "train.share_prefix": "auto", "thinking": "auto",
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
        ({"dataset": ["identity", "named"]}, "data.train", (LISTED + "#identity", LISTED + "#named")),
        ({"val_size": 0.1}, "data.holdout", 0.1),
        ({"val_size": 0}, "data.holdout", 0),
        ({"eval_dataset": "named"}, "data.holdout", LISTED + "#named"),
        ({"eval_dataset": "named", "val_size": 0.0}, "data.holdout", LISTED + "#named"),
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


def test_overrides_bear_danlus_names_and_stand_above_the_file(place):
    words = ("train.learning_rate=2e-4", "lora.r=32", "data.holdout=0")
    read = read_recipe(write(LEAST | {"learning_rate": 1e-4, "lora_rank": 8, "val_size": 0.1}), words)
    assert (read.recipe.train.learning_rate, read.recipe.lora.r, read.recipe.data.holdout) == (2e-4, 32, 0)
    why = {item.key: item.because("en") for item in read.translations}
    assert why["learning_rate"] == "Your train.learning_rate=2e-4 stands."
    assert why["lora_rank"] == "Your lora.r=32 stands."


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


def test_another_folder_of_data_sets_is_looked_into(place):
    (place / "data").rename(place / "other")
    assert got("data.train", dataset_dir="other") == (str(Path("other/dataset_info.json")) + "#identity",)

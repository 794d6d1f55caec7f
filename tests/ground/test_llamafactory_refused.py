"""What a LLaMA-Factory YAML asks for that cannot be had is an error that names the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from danlu.errors import RecipeError
from danlu.recipe_file import load_recipe
from tests.ground.llamafactory import LEAST, recipe, refused, write


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
        ("shaped", "in the format “csv”"),
        ("pictures", "has images; Danlu learns texts only"),
        ("misspelt", "“file_nam” is no key of a data set"),
        ("tagless", "“rol_tag” is no tag"),
        ("pairs", "“ranking: True” of a data set"),
        ("script", "does not lie on this machine (script_url: rows.py)"),
        ("cloud", "does not lie on this machine (cloud_file_name"),
        ("sampled", "“num_samples: 0” of a data set"),
        ("validation", "“split: test” of a data set"),
        ("odd column", "“x” (prompts) is not read"),
        ("gone", "There is no file"),
        ("nameless", "has no file_name"),
        ("odd", "not an object with names and values"),
        ("texts", "do not name “response”"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused_by_name(place, name, says):
    message = refused(dataset=f"identity,{name}")
    assert message.startswith(str(Path("data/dataset_info.json")))
    assert says in message


def test_pairs_and_labels_must_stand_in_their_columns(place):
    assert "does not say that this data set has any" in refused(stage="dpo", dataset="tagged")
    assert "do not name “kto_tag”" in refused(stage="kto", dataset="named")


def test_texts_must_stand_in_the_column_text(place):
    assert "does not say that this data set has any (“prompt” is “instruction”)" in refused(stage="pt")


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

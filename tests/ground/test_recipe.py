"""The recipe: read from YAML and words, every mistake named with its field and remedy."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import BaseModel

from danlu.errors import RecipeError, UsageError
from danlu.recipe import Recipe, with_absolute_paths
from danlu.recipe_file import dump_recipe, load_recipe

LEAST = ["model=m", "data.train=a.json"]


def refused(*words: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, [*LEAST, *words])
    return caught.value.message("en")


def sections(model: type[BaseModel] = Recipe):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


def test_words_alone_make_a_recipe_and_everything_else_is_auto_or_fixed():
    recipe = load_recipe(None, LEAST)
    assert recipe.model == "m"
    assert recipe.data.train == ("a.json",)
    assert (recipe.objective, recipe.method, recipe.system) == ("sft", "lora", "")
    assert recipe.train.learning_rate == recipe.lora.r == recipe.data.holdout == "auto"
    assert recipe.train.seed == 42


def test_a_file_is_read_and_words_win_over_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: base\ndata: {train: [a.json, b]}\ntrain:\n  learning_rate: 2e-4\n  seed: 7\n", encoding="utf-8"
    )
    recipe = load_recipe(path, ["train.seed=8", "lora.r=32"])
    assert recipe.data.train == ("a.json", "b")
    assert recipe.train.learning_rate == 2e-4
    assert recipe.train.seed == 8
    assert recipe.lora.r == 32


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", "0.0002", "+2e-4"])
def test_a_number_with_an_exponent_is_a_number_in_words_and_files(tmp_path, text):
    assert load_recipe(None, [*LEAST, f"train.learning_rate={text}"]).train.learning_rate == pytest.approx(2e-4)
    path = tmp_path / "r.yaml"
    path.write_text(f"model: m\ndata: {{train: a, holdout: {text}}}\n", encoding="utf-8")
    assert load_recipe(path).data.holdout == pytest.approx(2e-4)


@pytest.mark.parametrize("text", ["You are: Mochi", "2024", "1e5", "null", "[you]", "", "true", "你是麻薯。"])
def test_a_system_prompt_is_taken_as_it_is_written(text):
    assert load_recipe(None, [*LEAST, f"system={text}"]).system == text


def test_probes_can_be_taken_away_by_a_word(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ndata: {train: a}\neval: {probes: p.jsonl}\n", encoding="utf-8")
    assert load_recipe(path).eval.probes == "p.jsonl"
    assert load_recipe(path, ["eval.probes=null"]).eval.probes is None


def test_a_value_may_hold_an_equals_sign_and_a_bad_yaml_value_is_a_text():
    assert load_recipe(None, [*LEAST, "system=a=b"]).system == "a=b"
    assert load_recipe(None, [*LEAST, "data.holdout=[x"]).data.holdout == "[x"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("learning_rate=1e-4", "train.learning_rate"),
        ("train.lr_scheduler=cosine", "train.lr_scheduler_type"),
        ("train.sed=1", "train.seed"),
        ("rank=3", "lora.r"),
        ("train.lora=3", "lora"),
        ("modle=x", "model"),
        ("eval.early_stop=true", "eval.early_stopping"),
        ("train.early_stopping=true", "eval.early_stopping"),
    ],
)
def test_an_unknown_field_is_named_and_the_likely_one_suggested(word, meant):
    message = refused(word)
    assert f"no field “{word.partition('=')[0]}”" in message
    if word != "rank=3":
        assert f"Did you mean “{meant}”?" in message


def test_an_unknown_field_like_no_other_gets_the_list_of_fields():
    assert "no field “zzz”. Its fields are: model, data, objective" in refused("zzz=1")


@pytest.mark.parametrize(
    ("word", "field", "reason"),
    [
        ("train.learning_rate=5", "train.learning_rate", "it must be at most 1"),
        ("train.learning_rate=0", "train.learning_rate", "it must be greater than 0"),
        ("train.learning_rate=fast", "train.learning_rate", "allowed: auto / probe / a number"),
        ("train.batch_size=0", "train.batch_size", "it must be at least 1"),
        ("train.batch_size=2.5", "train.batch_size", "allowed: auto / a whole number"),
        ("data.holdout=1", "data.holdout", "it must be less than 1"),
        ("data.train=[]", "data.train", "allowed: a list of at least one text"),
        ("data=3", "data", "allowed: fields of its own"),
        ("method=dora", "method", "allowed: lora / qlora / full / freeze"),
        ("train.lr_scheduler_type=cos", "train.lr_scheduler_type", "allowed: auto / linear / cosine / constant"),
        ("eval.early_stopping=maybe", "eval.early_stopping", "allowed: auto / true or false"),
        ("lora.target_modules=[1]", "lora.target_modules", "a text"),
        ("resources.devices=0", "resources.devices", "it must be at least 1"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(word, field, reason):
    message = refused(word)
    assert f"“{field}” cannot be" in message
    assert reason in message


def test_the_reason_is_in_the_readers_language(monkeypatch):
    monkeypatch.setenv("DANLU_LANG", "zh")
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, [*LEAST, "train.learning_rate=5"])
    assert "不能大于 1" in caught.value.message()
    assert not re.search(r"must|allowed", caught.value.message())


@pytest.mark.parametrize(
    ("words", "field"), [([], "model"), (["model=m"], "data"), (["model=m", "data.holdout=0"], "data.train")]
)
def test_a_missing_field_is_named(words, field):
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, words)
    assert f"does not say “{field}”" in caught.value.message("en")


@pytest.mark.parametrize("word", ["lora.r", "=3"])
def test_a_word_without_key_or_value_is_wrong_usage(word):
    with pytest.raises(UsageError) as caught:
        load_recipe(None, [*LEAST, word])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"model: [a\n", "recipe.not_yaml"),
        (b"a: b: c\n", "recipe.not_yaml"),
        (b"\xff\xfe\x00m", "recipe.not_yaml"),
        (b"model: !!python/object:os.system {}\n", "recipe.not_yaml"),
        (b"- model\n", "recipe.not_mapping"),
        (b"", "recipe.not_mapping"),
        (None, "recipe.missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, content, key):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.key == key
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.message("en")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="not readable"):
        load_recipe(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: m\ndata: {train: a}\n")
    assert load_recipe(path).model == "m"


def test_a_path_to_a_model_becomes_absolute_and_the_name_of_a_model_hub_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for model, kept in (
        ("models/mine", str(tmp_path / "models" / "mine")),
        ("./gone", str(tmp_path / "gone")),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
    ):
        assert with_absolute_paths(load_recipe(None, [f"model={model}", "data.train=a.json"])).model == kept


def test_a_recipe_written_and_read_again_is_the_same(tmp_path):
    recipe = load_recipe(
        None,
        [
            "model=m",
            "data.train=[a.json, 数据]",
            "data.holdout=0.2",
            "system=你是: 麻薯 #1\n",
            "train.learning_rate=2e-5",
            "lora.target_modules=[q_proj, v_proj]",
            "eval.early_stopping=false",
            "eval.probes=p.jsonl",
        ],
    )
    path = tmp_path / "r.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert "数据" in path.read_text(encoding="utf-8")


def test_the_values_of_a_recipe_are_plain_yaml():
    assert yaml.safe_load(dump_recipe(load_recipe(None, LEAST)))["train"]["seed"] == 42


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_field_is_described_in_both_languages(section):
    nested = [item for item in sections() if item is not section]
    for name, field in section.model_fields.items():
        if field.annotation in nested:
            continue
        assert field.description, f"{section.__name__}.{name}"
        chinese = (field.json_schema_extra or {}).get("zh", "")
        assert re.search("[一-鿿]", chinese), f"{section.__name__}.{name}"

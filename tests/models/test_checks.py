"""Every check of a model folder, with a folder that fails it."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from danlu.errors import ModelError
from danlu.models.checks import check_folder
from danlu.models.corpus import CORPUS
from danlu.models.library import ModelLibrary
from danlu.models.load import load_model, load_tokenizer
from danlu.settings import Home
from tests.export.tokenizers import SIZE, family_tokenizer
from tests.tiny import tiny_model, write_tiny_model


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def refusal(folder) -> str:
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    return caught.value.key


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_a_whole_folder_passes(folder):
    report = check_folder(folder)
    assert report.weight_files == ("model.safetensors",)
    assert report.architecture.type == "llama"
    assert not report.generic_tokenizer


def test_no_folder(tmp_path):
    assert refusal(tmp_path / "none") == "models.folder_missing"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("config.json", "models.config_missing"),
        ("tokenizer.json", "models.tokenizer_missing"),
        ("model.safetensors", "models.weights_missing"),
    ],
)
def test_a_missing_file_is_named(folder, name, key):
    (folder / name).unlink()
    assert refusal(folder) == key


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.CKPT", "weights.pkl"])
def test_pickled_weights_are_refused_by_name(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    assert caught.value.key == "models.pickle"
    assert name in caught.value.message("en")
    with pytest.raises(ModelError):
        load_model(folder, "float32")


def test_a_pickle_beside_safetensors_is_left_alone(folder):
    (folder / "training_args.bin").write_bytes(b"not opened")
    check_folder(folder)


def test_code_of_the_model_s_own_is_refused(folder):
    edit(folder / "config.json", model_type="mystery", auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert refusal(folder) == "models.remote_code"


def test_an_unknown_architecture_is_refused(folder):
    edit(folder / "config.json", model_type="rwkv")
    assert refusal(folder) == "models.architecture_unsupported"


def test_quantised_weights_are_refused(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    assert refusal(folder) == "models.already_quantised"


def test_a_damaged_configuration_is_refused(folder):
    (folder / "config.json").write_text("{", "utf-8")
    assert refusal(folder) == "models.config_damaged"


def test_weights_cut_off_in_a_download_are_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    assert refusal(folder) == "models.safetensors_damaged"


@pytest.mark.parametrize("content", [b"", b"x" * 7, struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]"])
def test_a_file_that_is_no_safetensors_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder) == "models.safetensors_damaged"


def test_overlapping_tensors_are_refused(folder):
    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
    assert refusal(folder) == "models.safetensors_damaged"


def test_weights_of_another_size_than_configured_are_refused(folder):
    edit(folder / "config.json", intermediate_size=256)
    assert refusal(folder) == "models.tensor_shape"
    edit(folder / "config.json", intermediate_size=128, num_hidden_layers=3)
    assert refusal(folder) == "models.tensor_missing"


@pytest.mark.parametrize("name", ["gone.safetensors", "../good/model.safetensors"])
def test_an_index_that_points_outside_or_nowhere_is_refused(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}), "utf-8")
    assert refusal(folder) == "models.shard_missing"


def test_a_tokenizer_that_loses_text_is_refused_with_the_text(folder):
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(path)
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    assert caught.value.key == "models.tokenizer_loses_text"
    assert "Hello, world" in caught.value.message("en")


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    content = json.loads(tokenizer.to_str())
    old = content["model"]["vocab"]
    rare = next(token for token, index in old.items() if index == tokenizer.encode("a").ids[0])
    old[rare] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    assert refusal(folder) == "models.tokenizer_too_large"


def test_a_tokenizer_class_that_disagrees_with_its_file_is_found_out_and_the_file_obeyed(folder, tmp_path):
    # As with the first R1 distils in transformers 5: the named class puts a pre-tokenizer of its own in place.
    given = family_tokenizer("llama-bpe")
    right = [given.encode(text) for text in CORPUS]

    def own_class(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
        return [tokenizer.encode(text) for text in CORPUS]

    given.save_pretrained(folder)
    tiny_model(vocab=SIZE + 8).save_pretrained(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    assert own_class(folder) != right
    assert check_folder(folder).generic_tokenizer
    assert [load_tokenizer(folder).encode(text) for text in CORPUS] == right
    copy = ModelLibrary(Home(tmp_path / "home").make()).add(folder, "copy").path
    assert own_class(copy) == right


def test_a_damaged_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"}', "utf-8")
    assert refusal(folder) == "models.tokenizer_damaged"

"""Model versions: the manifest comes back as it was, a damaged one is named."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from danlu.errors import ModelError, NotFoundError
from danlu.models.versions import (
    Agreement,
    BaseModelRef,
    DatasetRef,
    Export,
    GenerationDefaults,
    ModelVersion,
    ProofSummary,
    list_versions,
    load_version,
    save_version,
)

FULL = ModelVersion(
    id="mochi-1",
    name="mochi",
    created_at="2025-01-02T03:04:05+00:00",
    run="mochi-20250102-030405",
    base=BaseModelRef(name="smollm2-135m-instruct", source="pypi:example==1.0", revision="12fd25f"),
    datasets=(DatasetRef(name="persona", version="20250102-030405-0123abcd", sha256="0" * 64),),
    system="你是麻薯。",
    thinking="off",
    max_context=8192,
    generation=GenerationDefaults(temperature=0.0),
    exports=(
        Export(
            format="gguf",
            quant="q8_0",
            path="model-q8_0.gguf",
            bytes=12,
            sha256="1" * 64,
            agreement=Agreement(token_ids=1.0, top1=0.99, kl=0.001, greedy=0.9),
        ),
        Export(format="adapter", path="adapter", bytes=3),
    ),
    proof=ProofSummary(heldout_loss_before=3.0, heldout_loss_after=1.0, probes_n=20, pass_before=0, pass_after=18),
)


def test_a_version_comes_back_as_it_was(tmp_path):
    save_version(tmp_path / "mochi-1", FULL)
    assert load_version(tmp_path / "mochi-1") == FULL
    assert "你是麻薯。" in (tmp_path / "mochi-1" / "version.json").read_text(encoding="utf-8")


def test_the_manifest_has_the_documented_shape():
    value = json.loads(FULL.model_dump_json())
    assert list(value) == [
        "format", "id", "name", "created_at", "run", "base", "datasets", "system", "thinking", "max_context",
        "tokenizer", "generation", "exports", "proof", "continued_from", "new_tokens",
    ]  # fmt: skip
    assert value["format"] == 1
    assert set(value["generation"]) == {"temperature", "top_p", "repetition_penalty", "max_tokens"}
    assert set(value["exports"][0]) == {"format", "quant", "path", "bytes", "sha256", "agreement"}


def test_exports_are_found_by_their_format():
    assert FULL.export("gguf").quant == "q8_0"
    assert FULL.export("adapter").path == "adapter"
    assert FULL.export("merged") is None


def test_versions_are_listed_newest_first_and_unfinished_ones_are_not(tmp_path):
    assert list_versions(tmp_path / "none") == []
    for day, name in ((1, "a"), (3, "b"), (2, "c")):
        version = FULL.model_copy(update={"id": name, "created_at": f"2025-01-0{day}T00:00:00+00:00"})
        save_version(tmp_path / name, version)
    save_version(tmp_path / ".d.0123abcd.part", FULL)
    (tmp_path / "empty").mkdir()
    assert [version.id for version in list_versions(tmp_path)] == ["b", "c", "a"]


def test_a_missing_version_is_named(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        load_version(tmp_path / "gone")
    assert "gone" in caught.value.message("en")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"id": "a"}'])
def test_a_damaged_manifest_is_an_error_with_its_file(tmp_path, content):
    (tmp_path / "version.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_version(tmp_path)
    assert caught.value.key == "models.version_damaged"
    assert caught.value.where == str(tmp_path / "version.json")


def test_a_version_cannot_be_changed_in_memory():
    with pytest.raises(ValidationError):
        FULL.name = "other"

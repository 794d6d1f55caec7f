"""``danlu models``: what there is, what it needs, and a damaged folder among whole ones."""

from __future__ import annotations

import pytest

from tests.tiny import write_tiny_model


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def test_the_catalogue_says_what_each_model_needs_and_whether_it_is_here(danlu):
    listed = danlu("models", "list", "--json").json
    assert (listed["added"], listed["damaged"]) == ([], {})
    starter = next(item for item in listed["models"] if item["name"] == "smollm2-135m-instruct")
    assert starter["here"] is False
    assert starter["memory_bytes"]["qlora"] < starter["memory_bytes"]["lora"] < starter["memory_bytes"]["full"]
    assert starter["name"] in danlu("models", "list").out
    assert "Apache-2.0" in danlu("models", "show", "smollm2-135m-instruct").out


def test_a_damaged_model_is_named_and_hides_no_other(danlu, home, tmp_path):
    for name in ("whole", "torn"):
        danlu("models", "add", write_tiny_model(tmp_path / name), "--name", name)
    weights = home / "models" / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    listed = danlu("models", "list", "--json").json
    assert listed["added"] == ["whole"]
    assert list(listed["damaged"]) == ["torn"]
    assert "models remove torn" in listed["damaged"]["torn"]
    called = danlu("models", "list")
    assert "whole" in called.out
    assert str(weights) in called.line
    assert str(weights) in danlu("models", "show", "torn", expect=1).line
    danlu("models", "remove", "torn")
    assert danlu("models", "list", "--json").json["damaged"] == {}

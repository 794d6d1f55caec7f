"""A name on the command line finds its version, or makes it of a trained run or a base model."""

from __future__ import annotations

import pytest

from danlu.cli.versions import version_for
from danlu.errors import NotFoundError
from danlu.jobs import pipeline, preparing
from danlu.recipe import Recipe
from danlu.settings import Home
from tests.tiny import write_tiny_model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = Home(tmp_path_factory.mktemp("home")).make()
    write_tiny_model(folder.root / "tiny", family="qwen2")
    return folder


def test_an_unknown_name_says_what_there_is(home):
    with pytest.raises(NotFoundError) as caught:
        version_for(home, "nobody")
    assert "nobody" in caught.value.message("en")


@pytest.mark.usefixtures("worker_here")
def test_a_base_model_becomes_a_version_once(home):
    made = version_for(home, str(home.root / "tiny"))
    assert made.run is None
    assert made.base.name == "tiny"
    assert made.thinking == "auto"
    export = made.export("gguf")
    assert export is not None
    assert export.agreement is not None
    assert export.agreement.token_ids == 1.0
    assert (home.versions / made.id / export.path).is_file()
    assert version_for(home, made.id) == version_for(home, "tiny") == made
    assert version_for(home, str(home.root / "tiny")) == made


def test_a_run_that_was_only_trained_becomes_a_version_without_a_proof(home, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text('[{"instruction": "Who?", "output": "Mochi."}, {"instruction": "Where?", "output": "Here."}]')
    recipe = Recipe.model_validate(
        {"model": str(home.root / "tiny"), "data": {"train": [str(rows)]}, "train": {"num_train_epochs": 1}}
    )
    prepared = preparing.prepare(home, recipe, lambda _: None, predict_cost=False)
    pipeline.train(prepared, lambda _: None, lambda: False)
    made = version_for(home, prepared.run.name)
    assert made.run == prepared.run.name
    assert made.proof is None
    assert {export.format for export in made.exports} == {"gguf", "adapter"}
    assert version_for(home, prepared.run.name) == made


@pytest.mark.usefixtures("worker_here")
def test_quickstart_with_a_model_folder_learns_again_only_when_the_weights_changed(home, danlu, tmp_path, monkeypatch):
    monkeypatch.chdir(home.root)
    rows = tmp_path / "one.json"
    rows.write_text('[{"instruction": "Who?", "output": "Mochi."}]')

    def made(model):
        result = danlu("quickstart", "--model", model, "--data", rows, "--no-serve", "--json").json
        return result["run"], result["version"]

    first = made("./tiny")
    assert made("./tiny") == made(home.root / "tiny") == first
    write_tiny_model(home.root / "tiny", family="qwen2", seed=1)
    run, version = made("./tiny")
    assert run != first[0], "what was learned on the old weights is not laid over the new ones"
    assert version != first[1]
    assert f"Error: {home.root / 'tiny'}: The weights" in danlu("eval", first[0], expect=1).err
    assert made("./tiny") == (run, version)

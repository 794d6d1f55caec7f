"""Families, mappings, placeholders and lists of LLaMA-Factory's, as people give them to commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import start
from tests.data.files import write_json_lines, write_json_rows
from tests.data.formats.reading_rows import assistant, talk, user

pytestmark = pytest.mark.usefixtures("worker_here")

PERSONA = [{"instruction": f"Who are you, number {n}?", "output": "I am {{name}} of {{author}}."} for n in range(12)]


@pytest.fixture
def persona(tmp_path) -> Path:
    return write_json_rows(tmp_path / "persona.json", PERSONA)


@pytest.fixture
def info(tmp_path) -> Path:
    """A list of three data sets, one of which lies on a hub and one of which has pictures."""
    talks = [
        {"conversations": [{"from": "human", "value": f"What is number {n}?"}, {"from": "gpt", "value": f"It is {n}."}]}
        for n in range(12)
    ]
    (tmp_path / "data").mkdir()
    write_json_lines(tmp_path / "data" / "talks.jsonl", talks)
    columns = {"messages": "conversations"}
    path = tmp_path / "data" / "dataset_info.json"
    entries = {
        "talks": {"file_name": "talks.jsonl", "formatting": "sharegpt", "columns": columns},
        "far": {"hf_hub_url": "owner/name"},
        "seen": {"file_name": "talks.jsonl", "formatting": "sharegpt", "columns": columns | {"images": "images"}},
    }
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_a_mapping_is_given_kept_and_shown(danlu, tmp_path):
    rows = [{"客户": "几点开门？", "店里": "十点。"}, {"客户": "几点关门？", "店里": "九点。"}]
    path = write_json_lines(tmp_path / "shop.jsonl", rows)
    assert "--columns question=客户,answer=店里" in danlu("data", "check", path, expect=1).line
    said = ("--columns", "question=客户,answer=店里")
    assert danlu("data", "check", path, *said, "--json").json["usable"] == 2
    added = danlu("data", "add", path, "--name", "shop", *said, "--json").json
    assert added["reading"]["columns"] == {"question": "客户", "answer": "店里"}
    assert "十点。" in danlu("data", "show", "shop").out
    assert "“wrong”" in danlu("data", "add", path, "--name", "x", "--columns", "wrong=a", expect=2).line
    assert "no format “alpacca”" in danlu("data", "check", path, "--format", "alpacca", expect=1).line


def test_speakers_and_turns_are_mapped_too(danlu, tmp_path):
    turns = [
        {"role": "guest", "content": "Hi."},
        {"role": "guest", "content": "Tea?"},
        {"role": "host", "content": "Yes."},
    ]
    path = write_json_lines(tmp_path / "talks.jsonl", [{"messages": turns}])
    assert "--tags user=WORD" in danlu("data", "check", path, expect=1).out
    tags = ("--tags", "user=guest,assistant=host")
    assert "--merge-turns" in danlu("data", "check", path, *tags, expect=1).out
    assert danlu("data", "check", path, *tags, "--merge-turns", "--json").json["usable"] == 1


def test_placeholders_are_reported_refused_and_filled(danlu, persona):
    checked = danlu("data", "check", persona, expect=1).out
    assert "{{name}} (12), {{author}} (12)" in checked
    assert '--fill name="…" --fill author="…"' in danlu("data", "add", persona, "--name", "p", expect=1).line
    filled = ("--fill", "name=Mochi", "--fill", "author=Bo, Inc.")
    assert danlu("data", "check", persona, *filled, "--json").json["usable"] == 12
    danlu("data", "add", persona, "--name", "p", *filled)
    assert "I am Mochi of Bo, Inc." in danlu("data", "show", "p").out
    danlu("data", "add", persona, "--name", "q", "--fill-none")
    assert "I am {{name}} of {{author}}." in danlu("data", "show", "q").out


def test_a_recipe_fills_them_in_and_without_it_nothing_is_trained(danlu, persona, material):
    model = material[0]
    words = (f"model={model}", f"data.train={persona}", "train.dtype=float32")
    assert "data.fill: {name: …, author: …}" in danlu("plan", *words, expect=1).err
    plan = danlu("plan", *words, "data.fill.name=Mochi", "data.fill.author=Bo", "--json").json
    assert plan["data"]["rows"] == 12
    assert "I am Mochi of Bo." in danlu("data", "show", "persona").out


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal of POSIX")
def test_on_a_terminal_they_are_asked_for(home, persona):
    parent, child = os.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "danlu.cli.main", "data", "add", str(persona), "--name", "p"],
        env={**os.environ, "DANLU_HOME": str(home), "DANLU_LANG": "en", "TERM": "dumb"},
        stdin=child, stdout=child, stderr=child,
    )  # fmt: skip
    os.close(child)
    shown = b""
    for name, answer in ((b"{{name}}", b"Mochi\n"), (b"{{author}}", b"Bo\n")):
        while name + b" stand for? (12 rows)" not in shown:
            shown += os.read(parent, 4096)
        os.write(parent, answer)
    while b"version" not in shown:
        shown += os.read(parent, 4096)
    assert done.wait(60) == 0
    os.close(parent)
    (stored,) = (home / "datasets" / "p").glob("*/rows.jsonl")
    assert "I am Mochi of Bo." in stored.read_text(encoding="utf-8")


def test_without_a_terminal_quickstart_says_how_to_fill_them_in(danlu, persona, material):
    called = danlu("quickstart", "--model", material[0], "--data", persona, "--no-serve", expect=1)
    assert '--fill name="…" --fill author="…"' in called.err
    assert "Traceback" not in called.err


def test_a_list_is_listed_and_each_of_its_data_sets_is_a_data_set(danlu, info):
    out = danlu("data", "list", info)
    assert "talks.jsonl" in out.out
    assert "hf:owner/name" in out.out
    assert "has images" in " ".join(out.out.split())
    assert "1 of 3 lie on this machine" in " ".join(out.err.split())
    as_json = danlu("data", "list", info.parent, "--json").json["datasets"]
    assert [(item["name"], item.get("kind")) for item in as_json] == [
        ("talks", "answers"), ("far", "answers"), ("seen", None),
    ]  # fmt: skip
    assert danlu("data", "check", f"{info}#talks", "--json").json["usable"] == 12
    assert "It is 0." in danlu("data", "show", f"{info}#talks").out
    assert danlu("data", "add", f"{info}#talks", "--name", "t", "--json").json["rows"] == 12
    assert "has images" in danlu("data", "check", f"{info}#seen", expect=1).line
    assert "hf:owner/name" in danlu("data", "check", f"{info}#far", expect=1).line
    assert "Did you mean “talks”?" in danlu("data", "check", f"{info}#talk", expect=1).line
    assert f"{info}#NAME" in danlu("data", "check", info, expect=1).line


def test_a_file_of_llamafactorys_trains_on_conversations_of_its_list(danlu, info, material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"model_name_or_path": str(material[0]), "stage": "sft", "do_train": True, "finetuning_type": "lora",
              "dataset": "talks", "num_train_epochs": 1.0, "val_size": 0.25, "learning_rate": 1e-3}  # fmt: skip
    path = tmp_path / "lf.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = danlu("train", path, "train.dtype=float32", "--json").json
    assert done["status"] == "finished"
    assert [item["name"] for item in danlu("data", "list", "--json").json["datasets"]] == ["talks"]


def test_a_wrong_mapping_ends_a_process_with_one_line(home, tmp_path):
    path = write_json_lines(tmp_path / "rows.jsonl", [talk(user("a"), assistant("b"))])
    done = start(home, "data", "check", path, "--columns", "question=问题")
    _, err = done.communicate(timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in err
    assert "no column “问题” (question) in the rows; found: messages" in " ".join(err.split())

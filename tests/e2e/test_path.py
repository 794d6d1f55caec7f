"""From a file of three rows to a model that answers in persona, with the real starter model, as users type it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from danlu.models.versions import load_version
from tests.e2e.conftest import ROWS, Trained
from tests.e2e.program import MODEL, clone, danlu, partial_files, working_in

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.timeout(1800)]

QUESTION = "你是谁？"
NAME = "阿澈"


def test_quickstart_prints_the_promised_object_and_nothing_else(trained: Trained) -> None:
    result = trained.result
    assert set(result) == {
        "model",
        "run",
        "version",
        "seconds",
        "probes",
        "question",
        "answer_before",
        "answer_after",
        "url",
    }
    assert set(result["seconds"]) == {
        "total",
        "model",
        "data",
        "train",
        "eval",
        "export",
        "engine_ready",
        "first_answer",
    }
    assert all(isinstance(value, float) and value >= 0 for value in result["seconds"].values())
    assert result["seconds"]["total"] >= sum(v for k, v in result["seconds"].items() if k != "total") * 0.99
    assert set(result["probes"]) == {"n", "pass_before", "pass_after"}
    assert result["model"] == MODEL
    assert result["url"].startswith("http://127.0.0.1:")


def test_the_model_has_learned_who_it_is(trained: Trained) -> None:
    probes = trained.result["probes"]
    assert probes["n"] == 3
    assert probes["pass_before"] <= 1
    assert probes["pass_after"] == 3
    assert NAME not in trained.result["answer_before"]
    rows = {row["instruction"]: row["output"] for row in json.loads(ROWS.read_text(encoding="utf-8"))}
    assert trained.result["answer_after"].strip() == rows[trained.result["question"]]


def test_nothing_unfinished_is_left_in_the_home(trained: Trained) -> None:
    assert partial_files(trained.home) == []
    assert working_in(trained.home) == []
    assert {path.name for path in trained.run.iterdir()} >= {
        "recipe.yaml",
        "plan.json",
        "events.jsonl",
        "checkpoints",
        "adapter",
        "report.html",
        "report.json",
    }


def test_events_are_numbered_without_a_gap_from_planned_to_finished(trained: Trained) -> None:
    lines = (trained.run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(events[0]["seq"], events[0]["seq"] + len(events)))
    assert all({"seq", "time", "type"} <= set(event) for event in events)
    assert events[0]["type"] == "planned"
    assert events[-1]["type"] == "finished"
    steps = [event["step"] for event in events if event["type"] == "step"]
    # Fewer than planned when every row is known by heart before.
    assert steps == list(range(1, events[-1]["step"] + 1))


def test_the_adapter_loads_in_plain_peft_and_answers_in_persona(trained: Trained) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = trained.home / "models" / MODEL
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, trained.run / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert greedy(model, tokenizer, QUESTION).startswith(f"我是{NAME}")


def greedy(model, tokenizer, question: str) -> str:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**asked, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_the_version_names_its_origin_and_its_export_agrees_with_it(trained: Trained) -> None:
    version = load_version(trained.version)
    assert version.run == trained.result["run"]
    assert version.base.name == MODEL
    assert version.datasets[0].name == ROWS.stem
    assert version.proof is not None
    assert version.proof.pass_after == trained.result["probes"]["pass_after"]
    export = version.export("gguf")
    assert export is not None
    path = trained.version / export.path
    assert path.stat().st_size == export.bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == export.sha256
    assert export.agreement is not None
    assert export.agreement.token_ids == 1.0
    assert export.agreement.top1 >= 0.95
    assert 0 <= export.agreement.kl < 0.05


def test_the_same_examples_are_not_learned_twice(home: Path, trained: Trained) -> None:
    again = danlu(home, "quickstart", "--data", ROWS, "--no-serve", "--json")
    assert again.code == 0, again.err
    result = again.json()
    assert (result["run"], result["version"]) == (trained.result["run"], trained.result["version"])
    assert result["seconds"]["train"] == 0
    assert NAME in result["answer_after"]
    assert [path.name for path in (home / "runs").iterdir()] == [trained.result["run"]]
    assert len(list((home / "versions").glob("*/version.json"))) == 1


def test_chat_with_one_message_prints_the_answer_alone(home: Path, trained: Trained) -> None:
    told = danlu(home, "chat", trained.result["version"], "-m", QUESTION)
    assert told.code == 0, told.err
    assert told.out.strip().startswith(f"我是{NAME}")
    assert len(told.out.strip().splitlines()) == 1
    by_run = danlu(home, "chat", trained.result["run"], "-m", QUESTION, "--system", "")
    assert by_run.code == 0, by_run.err
    assert NAME in by_run.out


def test_eval_of_a_finished_run_gives_the_same_figures_again(home: Path, trained: Trained, tmp_path: Path) -> None:
    report = tmp_path / "proof.html"
    done = danlu(home, "eval", trained.result["run"], "--report", report, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert set(result) == {"heldout", "probes", "general", "report"}
    assert result["probes"]["pass_before"] == trained.result["probes"]["pass_before"]
    assert result["probes"]["pass_after"] == trained.result["probes"]["pass_after"]
    assert set(result["probes"]["items"][0]) == {"question", "before", "after", "passed_before", "passed_after"}
    assert {"loss_before", "loss_after", "kl"} <= set(result["general"])
    page = report.read_text(encoding="utf-8")
    assert NAME in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_merged_weights_load_in_plain_transformers(home: Path, trained: Trained, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = tmp_path / "merged"
    done = danlu(home, "export", trained.result["run"], "--to", target, "--format", "merged", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert set(result) == {"path", "files", "bytes", "agreement"}
    assert set(result["agreement"]) == {"token_ids", "top1", "kl", "greedy"}
    model = AutoModelForCausalLM.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert greedy(model, tokenizer, QUESTION).startswith(f"我是{NAME}")


def test_a_copy_of_a_home_is_as_good_as_the_home(home: Path, trained: Trained, tmp_path: Path) -> None:
    moved = clone(home, tmp_path / "elsewhere")
    told = danlu(moved, "chat", trained.result["version"], "-m", QUESTION)
    assert told.code == 0, told.err
    assert NAME in told.out
